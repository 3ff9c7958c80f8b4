// SPDX-License-Identifier: MIT
#include "mole/router/chained_router.hpp"

#include "core/error_code.hpp"
#include "mole/router/cosine_router.hpp"
#include "mole/router/deep_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/noisy_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("ChainedRouter keeps the laws of routers, and its second router reads what the first one gives",
                   "[router]", float, double) {
  using T = TestType;
  Rng rng(1);
  const LinearRouter<T> first({.in = 13, .experts = 6, .bias = true}, rng);
  const LinearRouter<T> second({.in = 6, .experts = 4}, rng);
  const ChainedRouter router(first, second);
  REQUIRE(router.outputs() == 4);
  REQUIRE(router.in() == 13);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
  const auto x = support::random_matrix<T>(6, 13, 3);
  CHECK(support::same_bits(laws::logits_of(router, x), laws::logits_of(second, laws::logits_of(first, x))));
  std::vector<std::string> names;
  auto own = router.parameters();
  ParametersOf<ChainedRouter<LinearRouter<T>, LinearRouter<T>>>::for_each_tensor(
      [&](std::string_view name, auto&...) { names.emplace_back(name); }, own);
  CHECK(names == std::vector<std::string>{"first.weight", "first.bias", "second.weight", "second.bias"});
}

TEST_CASE("Cosines behind a network keep the laws of routers, and their gradients agree with central differences",
          "[router]") {
  const auto plain = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Raw{}});
  for (const RouterActivation activation : {RouterActivation::relu, RouterActivation::tanh}) {
    Rng rng(4);
    const DeepRouter<double> query({.in = 11, .experts = 5, .widths = {7}, .activation = activation}, rng);
    const CosineRouter<double> keys({.in = 5, .experts = 4}, rng);
    const ChainedRouter router(query, keys);
    CHECK(laws::broken_router_law(router, 11) == "");
    CHECK(laws::broken_trainable_router_law(router, 11) == "");
    const NoisyRouter noisy(router, {.learned = true, .floor = 0.01});
    MixtureLinear layer(noisy, plain.gating(), plain.experts(), plain.base(), Reference{});
    const GradientReport report = check_gradients(layer, {.pass = {.training = true, .seed = 2}});
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-7);
  }
}

TEST_CASE("ChainedRouter refuses a second router of other inputs", "[router]") {
  Rng rng(1);
  const LinearRouter<float> first({.in = 3, .experts = 2}, rng);
  CHECK(test::code_of([&] { ChainedRouter(first, first); }) == ErrorCode::shape);
}
