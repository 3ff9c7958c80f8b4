// SPDX-License-Identifier: MIT
#include "mole/stats/routing_stats.hpp"

#include "loss/loss_trace.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using namespace mole::test;

namespace {

using Counts = std::vector<std::int64_t>;

template <class T>
std::vector<T> copy_of(std::span<const T> numbers) {
  return {numbers.begin(), numbers.end()};
}

/// Three tokens of four experts, with 2, 1 and 0 of them; weights are sums of powers of 2, so masses are exact.
Trace<double> small_trace(const Pass& pass = {}) {
  Trace<double> trace = empty_trace(3, 4, 0, pass);
  route(trace, {{2, 0}, {2}, {}}, 0.25);
  trace.routing.gates()[0] = 0.5;
  return trace;
}

}  // namespace

TEST_CASE("Loads and masses are counted apart", "[stats]") {
  RoutingStats stats(4);
  stats.observe(small_trace());
  CHECK(copy_of(stats.load()) == Counts{1, 0, 2, 0});
  CHECK(copy_of(stats.mass()) == std::vector<double>{0.25, 0, 0.75, 0});
  CHECK(copy_of(stats.tokens_by_experts()) == Counts{1, 1, 1, 0, 0});
  CHECK(stats.tokens() == 3);
  CHECK(stats.pairs() == 3);
  CHECK(stats.mean_experts_per_token() == 1);
  CHECK(stats.dead_experts() == 2);
}

TEST_CASE("Even loads have no variation and all of the entropy", "[stats]") {
  RoutingStats stats(8);
  Trace<double> trace = empty_trace(8, 8);
  route(trace, {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}});
  stats.observe(trace);
  CHECK(stats.load_cv() == 0);
  CHECK(near(stats.load_entropy(), std::log(8)));
  CHECK(stats.load_kl_to_uniform() == 0);
  CHECK(stats.dead_experts() == 0);
}

TEST_CASE("One expert for all tokens is as uneven as can be", "[stats]") {
  RoutingStats stats(4);
  Trace<double> trace = empty_trace(3, 4);
  route(trace, {{1}, {1}, {1}});
  stats.observe(trace);
  CHECK(near(stats.load_cv(), std::sqrt(3)));
  CHECK(stats.load_entropy() == 0);
  CHECK(near(stats.load_kl_to_uniform(), std::log(4)));
  CHECK(stats.dead_experts() == 3);
}

TEST_CASE("A skewed load has the figures of its shares", "[stats]") {
  RoutingStats stats(3);
  Trace<double> trace = empty_trace(4, 3);
  route(trace, {{0}, {0}, {1}, {2}});  // shares 1/2, 1/4, 1/4
  stats.observe(trace);
  const double mean = 4.0 / 3, variance = ((2 - mean) * (2 - mean) + 2 * (1 - mean) * (1 - mean)) / 3;
  CHECK(near(stats.load_cv(), std::sqrt(variance) / mean));
  CHECK(near(stats.load_entropy(), 1.5 * std::log(2)));
  CHECK(near(stats.load_kl_to_uniform(), std::log(3) - 1.5 * std::log(2)));
}

TEST_CASE("Padding does not count", "[stats]") {
  const std::vector<std::uint8_t> mask{0, 1, 1};
  RoutingStats stats(4);
  stats.observe(small_trace({.token_mask = mask}));
  CHECK(copy_of(stats.load()) == Counts{0, 0, 1, 0});
  CHECK(copy_of(stats.mass()) == std::vector<double>{0, 0, 0.25, 0});
  CHECK(copy_of(stats.tokens_by_experts()) == Counts{1, 1, 0, 0, 0});
}

TEST_CASE("Shared experts are no part of the load", "[stats]") {
  RoutingStats stats(3);
  Trace<double> trace = empty_trace(2, 4, 0, {}, 1);
  route(trace, {{0, 3}, {2, 1, 3}});
  stats.observe(trace);
  CHECK(copy_of(stats.load()) == Counts{1, 1, 1});
  CHECK(copy_of(stats.tokens_by_experts()) == Counts{0, 1, 1, 0});
  CHECK(stats.load_cv() == 0);
}

TEST_CASE("Two stats merged are those of all calls", "[stats]") {
  RoutingStats all(5), first(5), second(5);
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Trace<double> trace = random_trace(40, 5, 0, {}, seed);
    for (double& weight : trace.routing.gates()) weight = std::ceil(weight * 1024) / 1024;  // sums are exact
    all.observe(trace);
    (seed % 3 == 0 ? first : second).observe(trace);
  }
  first.merge(second);
  CHECK(copy_of(first.load()) == copy_of(all.load()));
  CHECK(copy_of(first.mass()) == copy_of(all.mass()));
  CHECK(copy_of(first.tokens_by_experts()) == copy_of(all.tokens_by_experts()));
  CHECK(all.tokens() == 240);
  CHECK(all.load_kl_to_uniform() > 0);
  CHECK(near(all.load_kl_to_uniform(), std::log(5) - all.load_entropy()));
}

TEST_CASE("The counts of a layer's calls are its routing's", "[stats]") {
  auto layer = support::routed_layer<float>({.experts = 6}, support::top_2());
  auto work = layer.workspace(32);
  RoutingStats stats(6);
  Counts load(6, 0);
  for (std::uint64_t call = 0; call < 3; ++call) {
    layer.route(support::random_matrix<float>(32, layer.in(), call), work);
    stats.observe(work);
    for (Index e = 0; e < 6; ++e) load[std::size_t(e)] += work.routing.load(e);
  }
  CHECK(copy_of(stats.load()) == load);
  CHECK(stats.tokens_by_experts()[2] == 96);
  double mass = 0;
  for (double one : stats.mass()) mass += one;
  CHECK(near(mass, 96, 1e-5));  // weights of a token sum to 1 in float
}

TEST_CASE("Nothing observed, and nothing chosen, has figures of 0", "[stats]") {
  RoutingStats stats(3);
  for (int nothing : {0, 1, 2}) {
    if (nothing == 1) stats.observe(empty_trace(2, 3));
    if (nothing == 2) {
      Trace<double> trace = empty_trace(1, 3);
      route(trace, {{1}});
      stats.observe(trace);
      stats.reset();
      CHECK(stats.tokens() == 0);
      CHECK(copy_of(stats.load()) == Counts(3, 0));
      CHECK(copy_of(stats.mass()) == std::vector<double>(3, 0));
      CHECK(copy_of(stats.tokens_by_experts()) == Counts(4, 0));
    }
    CHECK(stats.pairs() == 0);
    CHECK(stats.mean_experts_per_token() == 0);
    CHECK(stats.load_cv() == 0);
    CHECK(stats.load_entropy() == 0);
    CHECK(stats.load_kl_to_uniform() == 0);
    CHECK(stats.dead_experts() == 3);
  }
}

TEST_CASE("Other numbers of experts are refused", "[stats]") {
  CHECK_THROWS_AS(RoutingStats(0), Error);
  RoutingStats stats(4);
  CHECK_THROWS_AS(stats.observe(empty_trace(1, 5)), Error);
  CHECK_THROWS_AS(stats.merge(RoutingStats(3)), Error);
}
