// SPDX-License-Identifier: MIT
#include "mole/optim/sign_bias_balancer.hpp"

#include "loss/loss_trace.hpp"
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/select/grouped_top_k.hpp"
#include "mole/router/latent_router.hpp"
#include "optim/tensors.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using namespace mole::test;

namespace {

const Pass training{.training = true};

/// Four experts with 3, 1, 2 and 0 of six pairs.
Trace<double> uneven_trace(const Pass& pass = training) {
  Trace<double> trace = empty_trace(3, 4, 0, pass);
  route(trace, {{0, 1}, {0, 2}, {2, 0}});
  return trace;
}

std::vector<std::int64_t> counts_of(const SignBiasBalancer& balancer) {
  return {balancer.counts().begin(), balancer.counts().end()};
}

}  // namespace

TEST_CASE("Experts above the mean fall by the rate, those below it rise, those at it stay", "[optim]") {
  SignBiasBalancer balancer({.experts = 5, .rate = 0.25});
  Trace<double> trace = empty_trace(5, 5, 0, training);
  route(trace, {{0, 1}, {0, 1}, {0, 2}, {0, 2}, {3, 1}});  // 4, 3, 2, 1, 0: the mean is 2
  balancer.observe(trace);
  CHECK(counts_of(balancer) == std::vector<std::int64_t>{4, 3, 2, 1, 0});
  CHECK(balancer.tokens() == 5);
  std::vector<double> bias{1, 1, 1, 1, 1};
  balancer.update(bias);
  CHECK(bias == std::vector<double>{0.75, 0.75, 1, 1.25, 1.25});
}

TEST_CASE("A mean that is no integer is at nobody's count", "[optim]") {
  SignBiasBalancer balancer({.experts = 4, .rate = 1});
  balancer.observe(uneven_trace());  // the mean is 1.5
  std::vector<float> bias(4);
  balancer.update(bias);
  CHECK(bias == std::vector<float>{-1, 1, -1, 1});
}

TEST_CASE("Counts add up over calls until an update, and begin anew then", "[optim]") {
  SignBiasBalancer balancer({.experts = 4, .rate = 1});
  for (int call = 0; call < 3; ++call) balancer.observe(uneven_trace());
  CHECK(counts_of(balancer) == std::vector<std::int64_t>{9, 3, 6, 0});
  CHECK(balancer.tokens() == 9);
  std::vector<double> bias(4);
  balancer.update(bias);
  const std::vector<double> after = bias;
  CHECK(counts_of(balancer) == std::vector<std::int64_t>(4, 0));
  CHECK(balancer.tokens() == 0);
  balancer.update(bias);  // nothing was counted
  CHECK(bias == after);
}

TEST_CASE("A share is below every count but 0", "[optim]") {
  SignBiasBalancer balancer({.experts = 4, .rate = 1, .target = BalanceTarget::frequency});
  balancer.observe(uneven_trace());
  std::vector<double> bias(4);
  balancer.update(bias);
  CHECK(bias == std::vector<double>{-1, -1, -1, 1});
  balancer.update(bias);
  CHECK(bias == std::vector<double>{-1, -1, -1, 1});
  Trace<double> all = empty_trace(1, 4, 0, training);
  route(all, {{3, 2, 1, 0}});
  balancer.observe(all);  // one token with everybody: count and share are 1
  balancer.update(bias);
  CHECK(bias == std::vector<double>{-1, -1, -1, 1});
}

TEST_CASE("Padding does not count, unless it is asked for", "[optim]") {
  const std::vector<std::uint8_t> mask{1, 0, 1};
  const Trace<double> trace = uneven_trace({.training = true, .token_mask = mask});
  SignBiasBalancer balancer({.experts = 4}), release({.experts = 4, .counts_padding = true});
  balancer.observe(trace);
  release.observe(trace);
  CHECK(counts_of(balancer) == std::vector<std::int64_t>{2, 1, 1, 0});
  CHECK(balancer.tokens() == 2);
  CHECK(counts_of(release) == std::vector<std::int64_t>{3, 1, 2, 0});
  CHECK(release.tokens() == 3);
}

TEST_CASE("Shared experts need no balance", "[optim]") {
  const std::vector<std::uint8_t> mask{1, 1, 0};
  for (const Pass& pass : {training, Pass{.training = true, .token_mask = mask}}) {
    Trace<double> trace = empty_trace(3, 4, 0, pass, 1);
    route(trace, {{0, 3}, {1, 3}, {1, 3}});
    SignBiasBalancer balancer({.experts = 3});
    balancer.observe(trace);
    CHECK(counts_of(balancer) == std::vector<std::int64_t>{1, pass.token_mask.empty() ? 2 : 1, 0});
  }
}

TEST_CASE("A call that does not train is refused, unless it is to count", "[optim]") {
  SignBiasBalancer balancer({.experts = 4}), release({.experts = 4, .counts_evaluation = true});
  const Trace<double> trace = uneven_trace({});
  CHECK_FALSE(complaint(ErrorCode::option, [&] { balancer.observe(trace); }).empty());
  CHECK(counts_of(balancer) == std::vector<std::int64_t>(4, 0));
  release.observe(trace);
  CHECK(counts_of(release) == std::vector<std::int64_t>{3, 1, 2, 0});
}

TEST_CASE("What does not fit is refused, and changes nothing", "[optim]") {
  CHECK_FALSE(complaint(ErrorCode::option, [] { SignBiasBalancer({.experts = 0}); }).empty());
  CHECK_FALSE(complaint(ErrorCode::option, [] { SignBiasBalancer({.experts = 2, .rate = -1}); }).empty());
  SignBiasBalancer balancer({.experts = 4}), of_five({.experts = 5});
  CHECK_FALSE(complaint(ErrorCode::shape, [&] { of_five.observe(uneven_trace()); }).empty());
  balancer.observe(uneven_trace());
  std::vector<float> bias(3);
  CHECK(complaint(ErrorCode::shape, [&] { balancer.update(bias); }).find("expected 4, found 3") != std::string::npos);
  CHECK(bias == std::vector<float>(3));
  CHECK(counts_of(balancer) == std::vector<std::int64_t>{3, 1, 2, 0});
}

TEST_CASE("Every policy with a bias can be balanced", "[optim]") {
  SignBiasBalancer balancer({.experts = 4, .rate = 1});
  const std::vector<float> moved{-1, 1, -1, 1};
  LatentRouter<float> router(4);
  BiasedSigmoid<float> score(4);
  GroupedTopK<float> select(2, 1, 1, std::vector<float>(4));
  balancer.observe(uneven_trace());
  balancer.update(router.bias());
  balancer.observe(uneven_trace());
  balancer.update(score.bias);
  balancer.observe(uneven_trace());
  balancer.update(select.bias);
  CHECK(std::vector<float>(router.bias().begin(), router.bias().end()) == moved);
  CHECK(score.bias == moved);
  CHECK(select.bias == moved);
}

TEST_CASE("Balancing spreads the tokens of a router that prefers one expert", "[optim]") {
  constexpr Index experts = 8, tokens = 64;
  auto layer = support::routed_layer<float>(
      {.experts = experts, .bias = true},
      Gate{Sigmoid{}, GroupedTopK<float>(2, 1, 1, std::vector<float>(experts)), Renormalized{}});
  layer.router().parameters().bias(0, 3) = 2;  // everybody's favorite
  auto work = layer.workspace(tokens);
  const auto x = support::random_matrix<float>(tokens, layer.in(), 3);
  const auto most = [&] {
    Index load = 0;
    for (Index e = 0; e < experts; ++e) load = std::max(load, work.routing.load(e));
    return load;
  };
  SignBiasBalancer balancer({.experts = experts, .rate = 0.01});
  layer.route(x, work, training);
  const Index before = most();
  for (int step = 0; step < 200; ++step) {
    layer.route(x, work, training);
    balancer.observe(work);
    balancer.update(layer.gating().select.bias);
  }
  CHECK(before == tokens);
  CHECK(most() < tokens * 2 / experts + 6);  // the mean is 16
}
