// SPDX-License-Identifier: MIT
#include "mole/router/linear_router.hpp"

#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("LinearRouter keeps the laws of routers", "[router]", float, double) {
  Rng rng(1);
  const bool bias = GENERATE(false, true);
  const LinearRouter<TestType> router({.in = 13, .experts = 5, .bias = bias}, rng);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
}

TEST_CASE("LinearRouter's logits are x W^T + b", "[router]") {
  Rng rng(2);
  LinearRouter<double> router({.in = 2, .experts = 3, .bias = true}, rng);
  auto& p = router.parameters();
  for (Index e = 0; e < 3; ++e) {
    p.weight(e, 0) = double(e);
    p.weight(e, 1) = 10;
    p.bias(0, e) = 0.5;
  }
  Matrix<double> x(1, 2);
  x(0, 0) = 3;
  x(0, 1) = 1;
  const auto logits = laws::logits_of(router, x);
  CHECK(logits(0, 0) == 10.5);
  CHECK(logits(0, 1) == 13.5);
  CHECK(logits(0, 2) == 16.5);
}

TEST_CASE("LinearRouter starts uniform within one over the root of its inputs", "[router]") {
  Rng rng(3);
  const LinearRouter<double> router({.in = 400, .experts = 50, .bias = true}, rng);
  double most = 0, square = 0;
  for (double w : router.parameters().weight.elements()) most = std::max(most, std::abs(w)), square += w * w;
  CHECK(most <= 0.05);
  CHECK(most > 0.0499);
  CHECK(std::abs(square / 20000 - 0.05 * 0.05 / 3) < 2e-5);
}

TEST_CASE("LinearRouter refuses sizes and rates out of range", "[router]") {
  Rng rng(4);
  CHECK_THROWS_AS(LinearRouter<float>({.in = 0, .experts = 3}, rng), Error);
  CHECK_THROWS_AS(LinearRouter<float>({.in = 3, .experts = 0}, rng), Error);
  CHECK_THROWS_AS(LinearRouter<float>({.in = 3, .experts = 2, .dropout = {.rate = 1}}, rng), Error);
}

TEST_CASE("LinearRouter with dropout sees the masked x in training only", "[router]") {
  Rng rng(5);
  const Dropout dropout{.rate = 0.5, .stream = 7};
  const LinearRouter<double> router({.in = 20, .experts = 4, .dropout = dropout}, rng);
  const auto x = support::random_matrix<double>(6, 20, 6);
  const Pass training{.training = true, .seed = 9, .step = 2};
  laws::Harness<LinearRouter<double>> harness(router, 6, 0, training);
  auto call = harness.call();
  Matrix<double> logits(6, 4), dropped(6, 20);
  router.forward(x, logits.view(), call);
  dropout.forward(x.view(), dropped.view(), training);
  CHECK(support::same_bits(logits, laws::logits_of(router, dropped)));
  CHECK_FALSE(support::same_bits(logits, laws::logits_of(router, x)));
}

TEST_CASE("LinearRouter takes parameters that exist, and refuses none and a bias that does not fit", "[router]") {
  const auto weight = support::random_matrix<double>(3, 4, 1), bias = support::random_matrix<double>(1, 3, 2);
  const LinearRouter<double> router({weight, bias});
  CHECK(router.in() == 4);
  CHECK(router.outputs() == 3);
  CHECK(support::same_bits(router.parameters().weight, weight));
  CHECK(support::same_bits(router.parameters().bias, bias));
  const auto refused = [](LinearParameters<double> parameters, Dropout dropout = {}) {
    CHECK_THROWS_AS(LinearRouter<double>(std::move(parameters), dropout), Error);
  };
  refused({});
  refused({weight, Matrix<double>(1, 4)});
  refused({weight, {}}, {.rate = 1});
}
