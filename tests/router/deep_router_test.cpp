// SPDX-License-Identifier: MIT
#include "mole/router/deep_router.hpp"

#include "core/error_code.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/mlp_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("DeepRouter keeps the laws of routers, at every depth", "[router]", float, double) {
  Rng rng(1);
  for (const std::vector<Index>& widths : {std::vector<Index>{}, {7}, {7, 3}, {2, 9, 4}, {1, 2, 3, 4, 5, 6, 7}})
    for (const RouterActivation activation : {RouterActivation::relu, RouterActivation::tanh, RouterActivation::none}) {
      const DeepRouter<TestType> router({.in = 13, .experts = 5, .widths = widths, .activation = activation}, rng);
      CHECK(laws::broken_router_law(router, 13) == "");
      CHECK(laws::broken_trainable_router_law(router, 13) == "");
    }
}

TEST_CASE("DeepRouter without a hidden layer is a LinearRouter, with one an MlpRouter", "[router]") {
  Rng rng(1);
  const auto x = support::random_matrix<double>(6, 5, 2);
  const DeepRouter<double> flat({.in = 5, .experts = 3}, rng);
  CHECK(support::same_bits(laws::logits_of(flat, x),
                           laws::logits_of(LinearRouter<double>(flat.parameters().layers[0]), x)));
  const DeepRouter<double> deep({.in = 5, .experts = 3, .widths = {8}}, rng);
  MlpRouter<double> mlp({.in = 5, .hidden = 8, .experts = 3}, rng);
  mlp.parameters() = {deep.parameters().layers[0], deep.parameters().layers[1]};
  CHECK(support::same_bits(laws::logits_of(deep, x), laws::logits_of(mlp, x)));
}

TEST_CASE("Gradients through every hidden layer agree with central differences, with dropout, too", "[router]") {
  const auto plain = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Raw{}});
  for (const auto& [rate, activation] :
       {std::pair(0.0, RouterActivation::relu), std::pair(0.4, RouterActivation::relu),
        std::pair(0.0, RouterActivation::tanh), std::pair(0.4, RouterActivation::tanh),
        std::pair(0.0, RouterActivation::none), std::pair(0.4, RouterActivation::none)}) {
    Rng rng(4);
    const DeepRouter<double> router(
        {.in = 11, .experts = 4, .widths = {9, 6}, .activation = activation, .dropout = {.rate = rate, .stream = 5}},
        rng);
    MixtureLinear layer(router, plain.gating(), plain.experts(), plain.base(), Reference{});
    const GradientReport report = check_gradients(layer, {.pass = {.training = true, .seed = 2}});
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-7);
  }
}

TEST_CASE("A hidden layer of tanh gives the hyperbolic tangent of its linear map", "[router]") {
  Rng rng(6);
  const DeepRouter<double> router({.in = 3, .experts = 2, .widths = {4}, .activation = RouterActivation::tanh}, rng);
  const auto x = support::random_matrix<double>(5, 3, 2);
  const auto logits = laws::logits_of(router, x);
  const auto& layers = router.parameters().layers;
  for (Index n = 0; n < 5; ++n)
    for (Index e = 0; e < 2; ++e) {
      long double sum = layers[1].bias(0, e);
      for (Index j = 0; j < 4; ++j) {
        long double z = layers[0].bias(0, j);
        for (Index i = 0; i < 3; ++i) z += (long double)(layers[0].weight(j, i)) * x(n, i);
        sum += layers[1].weight(e, j) * std::tanh(z);
      }
      CHECK(std::abs(logits(n, e) - double(sum)) < 1e-14);
    }
}

TEST_CASE("Dropout between layers acts in training only, and keeps the mean", "[router]") {
  Rng rng(5);
  DeepRouter<double> router({.in = 2, .experts = 1, .widths = {4000}, .dropout = {.rate = 0.25}}, rng);
  auto& layers = router.parameters().layers;
  layers[0].weight.set_zero(), layers[1].bias.set_zero();
  fill(layers[0].bias.view(), 1.0);
  fill(layers[1].weight.view(), 1.0 / 4000);
  const Matrix<double> x(1, 2);
  CHECK(std::abs(laws::logits_of(router, x)(0, 0) - 1) < 1e-12);
  laws::Harness<DeepRouter<double>> harness(router, 1, 0, {.training = true});
  const double dropped = laws::logits_of(router, x, harness.call())(0, 0);
  CHECK(dropped != 1);
  CHECK(std::abs(dropped - 1) < 0.04);
}

TEST_CASE("DeepRouter refuses sizes and rates out of range, and layers that do not fit", "[router]") {
  Rng rng(1);
  const auto code = [&](const DeepRouterOptions& options) {
    return test::code_of([&] { DeepRouter<float>(options, rng); });
  };
  CHECK(code({.in = 0, .experts = 3}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 0}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 2, .widths = {4, 0}}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 2, .widths = std::vector<Index>(8, 4)}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 2, .dropout = {.rate = 1}}) == ErrorCode::option);
  DeepRouter<float> router({.in = 3, .experts = 2, .widths = {4}}, rng);
  router.parameters().layers[1].weight = Matrix<float>(2, 5);
  CHECK(test::code_of([&] { router.check_sizes(); }) == ErrorCode::shape);
}
