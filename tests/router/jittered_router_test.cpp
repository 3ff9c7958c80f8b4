// SPDX-License-Identifier: MIT
#include "mole/router/jittered_router.hpp"

#include "mole/router/cosine_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

static_assert(TrainableRouterPolicy<JitteredRouter<LinearRouter<float>>>);

TEMPLATE_TEST_CASE("JitteredRouter keeps the laws of routers", "[router]", float, double) {
  Rng rng(1);
  const JitteredRouter router(LinearRouter<TestType>({.in = 13, .experts = 5}, rng), {.amount = 0.1});
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
}

TEST_CASE("JitteredRouter's logits are the router's for the jittered tokens, in training", "[router]") {
  Rng rng(2);
  const CosineRouter<double> plain({.in = 6, .experts = 3}, rng);
  const Jitter jitter{.amount = 0.3, .stream = 5};
  const JitteredRouter router(plain, jitter);
  const auto x = support::random_matrix<double>(5, 6, 3);
  const Pass training{.training = true, .seed = 7};
  Matrix<double> jittered(5, 6), logits(5, 3);
  jitter.forward(x.view(), jittered.view(), training);
  laws::Harness<JitteredRouter<CosineRouter<double>>> harness(router, 5, 0, training);
  router.forward(x, logits.view(), harness.call());
  CHECK(support::same_bits(logits, laws::logits_of(plain, jittered)));
  CHECK_FALSE(support::same_bits(logits, laws::logits_of(plain, x)));
  CHECK(support::same_bits(laws::logits_of(router, x), laws::logits_of(plain, x)));
}

TEST_CASE("A layer whose router is jittered has the right gradients, and its experts see x itself", "[router]") {
  auto plain = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Renormalized{}});
  MixtureLinear layer(JitteredRouter(plain.router(), {.amount = 0.4}), plain.gating(), plain.experts(), plain.base(),
                      Reference{});
  const GradientReport report = check_gradients(layer, {.pass = {.training = true, .seed = 3}});
  INFO(report.worst_tensor);
  CHECK(report.passed(1e-7));

  plain.router().parameters().weight.set_zero();  // gates no longer depend on the token
  layer.router().parameters().weight.set_zero();
  const auto x = support::random_matrix<double>(5, 11, 3);
  CHECK(support::same_bits(support::output(layer, x, {.training = true}), support::output(plain, x)));
}

TEST_CASE("JitteredRouter refuses an amount of 1", "[router]") {
  Rng rng(1);
  const LinearRouter<float> plain({.in = 3, .experts = 2}, rng);
  CHECK_THROWS_AS(JitteredRouter(plain, {.amount = 1}), Error);
}
