// SPDX-License-Identifier: MIT
#include "mole/stats/routing_trace.hpp"

#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;

namespace {

template <class T>
bool same_routing(const Routing<T>& a, const Routing<T>& b) {
  if (a.tokens() != b.tokens() || a.experts() != b.experts() || a.pairs() != b.pairs() || a.dense() != b.dense())
    return false;
  bool same = std::equal(a.gates().begin(), a.gates().end(), b.gates().begin()) &&
              std::equal(a.by_expert().begin(), a.by_expert().end(), b.by_expert().begin());
  for (Index p = 0; p < a.pairs(); ++p) same = same && a.expert(p) == b.expert(p) && a.token(p) == b.token(p);
  for (Index n = 0; n < a.tokens(); ++n) same = same && a.first_pair(n) == b.first_pair(n);
  for (Index e = 0; e < a.experts(); ++e) same = same && a.load(e) == b.load(e);
  return same && b.finished();
}

}  // namespace

TEST_CASE("A replayed routing is the recorded one, call by call", "[stats]") {
  auto layer = support::routed_layer<float>({.experts = 6}, Gate{Softmax{}, TopP{.p = 0.6}, Raw{}});
  auto dense = support::routed_layer<float>({.experts = 4}, Gate{Softmax{}, All{}, Raw{}});
  auto work = layer.workspace(16);
  auto of_dense = dense.workspace(16);
  RoutingTrace<float> trace;
  std::vector<Routing<float>> recorded;
  for (Index tokens : {Index(16), Index(0), Index(1), Index(7)}) {
    layer.route(random_matrix<float>(tokens, layer.in(), 10 + std::uint64_t(tokens)), work);
    recorded.push_back(work.routing);
    dense.route(random_matrix<float>(tokens, dense.in(), 20 + std::uint64_t(tokens)), of_dense);
    recorded.push_back(of_dense.routing);
  }
  for (const auto& routing : recorded) trace.record(routing);
  REQUIRE(trace.calls() == 8);
  Routing<float> reused;
  for (Index call = 7; call >= 0; --call) {
    const Routing<float>& one = recorded[std::size_t(call)];
    INFO("call " << call);
    CHECK(same_routing(one, trace.replay(call)));
    trace.replay(call, reused);
    CHECK(same_routing(one, reused));
    CHECK(trace.tokens(call) == one.tokens());
    CHECK(trace.experts(call) == one.experts());
    CHECK(trace.pairs(call) == one.pairs());
  }
}

TEMPLATE_TEST_CASE("What is computed from a replayed routing has the bits of the recorded call", "[stats]", Reference,
                   Simd<>) {
  auto layer = support::routed_layer<float>({}, support::top_2(), TestType{});
  ExpertLinear outside(layer.experts(), layer.base(), TestType{});
  const auto x = random_matrix<float>(16, layer.in(), 1);
  Matrix<float> y(16, layer.out()), replayed(16, layer.out()), from_outside(16, layer.out());
  auto work = layer.workspace(16);
  auto of_outside = outside.workspace(16);
  layer.forward(x, y, work);
  RoutingTrace<float> trace;
  trace.record(work.routing);
  layer.route(random_matrix<float>(16, layer.in(), 2), work);  // another routing in between
  layer.apply(x, trace.replay(0), replayed, work);
  outside.apply(x, trace.replay(0), from_outside, of_outside);
  CHECK(support::same_bits(y, replayed));
  CHECK(support::same_bits(y, from_outside));
}

TEST_CASE("A trace that is cleared records anew", "[stats]") {
  RoutingTrace<double> trace;
  trace.record(Routing<double>::from_dense(random_matrix<double>(3, 4, 1)));
  trace.clear();
  CHECK(trace.calls() == 0);
  const auto routing = Routing<double>::from_dense(random_matrix<double>(2, 5, 2));
  trace.record(routing);
  CHECK(same_routing(routing, trace.replay(0)));
}

TEST_CASE("Calls that were not recorded, and routings that are not finished, are refused", "[stats]") {
  RoutingTrace<float> trace;
  CHECK_THROWS_AS(trace.replay(0), Error);
  Routing<float> routing;
  routing.start(3);
  routing.push(1, 0.5f);
  CHECK_THROWS_AS(trace.record(routing), Error);
  CHECK(trace.calls() == 0);
  routing.end_token();
  routing.finish();
  trace.record(routing);
  CHECK_THROWS_AS(trace.replay(1), Error);
  CHECK_THROWS_AS(trace.replay(-1), Error);
}
