// SPDX-License-Identifier: MIT
#include "mole/router/mlp_router.hpp"

#include "core/error_code.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("MlpRouter keeps the laws of routers", "[router]", float, double) {
  Rng rng(1);
  const MlpRouter<TestType> router({.in = 13, .hidden = 5, .experts = 3}, rng);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
}

TEST_CASE("MlpRouter is two linear maps and a ramp", "[router]") {
  Rng rng(1);
  MlpRouter<double> router({.in = 2, .hidden = 2, .experts = 1}, rng);
  auto& p = router.parameters();
  const double w0[] = {1, -1, 2, 0}, w1[] = {3, -2};
  std::copy(std::begin(w0), std::end(w0), p.hidden.weight.data());
  std::copy(std::begin(w1), std::end(w1), p.output.weight.data());
  p.hidden.bias(0, 0) = 1, p.hidden.bias(0, 1) = -4;
  p.output.bias(0, 0) = 0.5;
  Matrix<double> x(2, 2);
  x(0, 0) = 1, x(0, 1) = 3;  // hidden -1, -2: none
  x(1, 0) = 4, x(1, 1) = 2;  // hidden 3, 4
  const auto logits = laws::logits_of(router, x);
  CHECK(logits(0, 0) == 0.5);
  CHECK(logits(1, 0) == 9 - 8 + 0.5);
}

TEST_CASE("Each map of an MlpRouter starts within the bound of its own number of inputs, and up to it", "[router]") {
  Rng rng(1);
  const MlpRouter<double> router({.in = 400, .hidden = 3, .experts = 100}, rng);
  const auto largest = [](const Matrix<double>& m) {
    double most = 0;
    for (double element : m.elements()) most = std::max(most, std::abs(element));
    return most;
  };
  const double hidden = 1 / std::sqrt(400.0), output = 1 / std::sqrt(3.0);
  const auto& p = router.parameters();
  CHECK((largest(p.hidden.weight) > 0.9 * hidden && largest(p.hidden.weight) <= hidden));
  CHECK((largest(p.output.weight) > 0.9 * output && largest(p.output.weight) <= output));
  CHECK((largest(p.hidden.bias) > 0 && largest(p.hidden.bias) <= hidden));
  CHECK((largest(p.output.bias) > 0.9 * output && largest(p.output.bias) <= output));
}

TEST_CASE("MlpRouter refuses a hidden layer of nothing", "[router]") {
  Rng rng(1);
  CHECK(test::code_of([&] { MlpRouter<float>({.in = 3, .hidden = 0, .experts = 2}, rng); }) == ErrorCode::option);
}
