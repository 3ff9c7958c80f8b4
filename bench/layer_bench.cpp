// SPDX-License-Identifier: MIT
// What adapters cost on top of a frozen linear layer, against its own plain layer and against the machine.
//
//   tokens/s, GFLOP/s   of one thread's CPU time; of wall time where there are several
//   roofline            the least time that one thread of this machine could take, over the time taken
//   plain               the time over that of the plain layer of the same T and d, in alternating slices
//   ideal               what `plain` would be, were both as fast as the machine at arithmetic
//
// All sizes take minutes: choose with --benchmark_filter='forward/top2/.*/d:768'. Its smoke test takes d:768 and few
// tokens.
#include "bench/support/bench_layer.hpp"
#include "bench/support/counters.hpp"
#include "bench/support/plain_peers.hpp"
#include "bench/support/quantile.hpp"
#include "bench/support/timed_body.hpp"

#include <cmath>
#include <string>

namespace {

using mole::Index;
using support::BenchLayer;
using support::LayerCase;

struct Row {
  LayerCase one;
  Index tokens, d;
  int threads = 1;
  bool backward = false;

  support::Clock clock() const { return threads == 1 ? support::thread_clock : support::wall_clock; }
  support::Work work(const support::LayerCost& cost) const {
    return backward ? cost.forward_backward() : cost.forward();
  }
  const std::function<void()>& body(const BenchLayer& layer) const {
    return backward ? layer.forward_backward : layer.forward;
  }

  std::string name() const {
    std::string name = (backward ? "forward_backward/" : "forward/") + std::string(one.name);
    const auto add = [&](const char* size, Index value) {
      name.append(size).append(":").append(std::to_string(value));
    };
    if (one.routed != support::Routed::nobody) add("/E", one.experts);
    if (one.routed == support::Routed::top_k) add("/k", one.chosen);
    if (one.routed != support::Routed::nobody) add("/r", one.rank);
    add("/T", tokens);
    add("/d", d);
    if (threads > 1) add("/threads", threads);
    return name;
  }
};

/// The loop of Google Benchmark; seconds of one call.
double seconds_of(benchmark::State& state, const std::function<void()>& body, support::Clock clock) {
  const double begin = clock();
  for (auto _ : state) body();
  return (clock() - begin) / double(state.iterations());
}

/// Time of `body` over that of `other`: rounds for about as long as the loop took.
double ratio(const std::function<void()>& body, const std::function<void()>& other, double slice,
             support::Clock clock) {
  const support::TimedBody a(body, slice, clock), b(other, slice, clock);
  std::vector<double> ratios;
  for (int round = 0; round < 5; ++round) {
    const double first = a.seconds();
    ratios.push_back(first / b.seconds());
  }
  return support::median(ratios);
}

void report(benchmark::State& state, const support::Work& work, double seconds, double over_plain, double ideal) {
  support::set_counters<float>(state, work, seconds);
  state.counters["plain"] = over_plain;
  state.counters["ideal"] = ideal;
}

void layer(benchmark::State& state, const Row& row) {
  const BenchLayer layer = bench_layer(row.one, row.tokens, row.d, row.threads);
  const double seconds = seconds_of(state, row.body(layer), row.clock());
  double over_plain = 1;
  if (row.one.routed != support::Routed::nobody) {
    const BenchLayer plain = bench_layer(support::layer_case("plain"), row.tokens, row.d, row.threads);
    over_plain = ratio(row.body(layer), row.body(plain), seconds * double(state.iterations()) / 5, row.clock());
  }
  report(state, row.work(layer.cost), seconds, over_plain,
         row.work(layer.cost).flops / row.work(layer.cost.plain()).flops);
}

void peer(benchmark::State& state, const support::PlainPeer& peer, Index tokens, Index d) {
  const auto body = peer.forward(tokens, d);
  const BenchLayer plain = bench_layer(support::layer_case("plain"), tokens, d);
  const double seconds = seconds_of(state, body, support::thread_clock);
  report(state, plain.cost.forward(), seconds,
         ratio(body, plain.forward, seconds * double(state.iterations()) / 5, support::thread_clock), 1);
}

void add(const Row& row) {
  auto* one = benchmark::RegisterBenchmark(row.name().c_str(), layer, row);
  if (row.threads > 1) one->UseRealTime();
}

void add_cases() {
  for (const bool backward : {false, true})
    for (const LayerCase& one : support::layer_cases)
      for (const Index d : {768, 2048, 4096})
        for (const Index tokens : {1, 8, 16, 64, 512, 2048}) add({one, tokens, d, 1, backward});
}

void add_peers() {
  for (const support::PlainPeer& one : support::plain_peers())
    for (const Index d : {768, 2048, 4096})
      for (const Index tokens : {1, 8, 16, 64, 512, 2048}) {
        const std::string name =
            "forward/plain:" + std::string(one.name) + "/T:" + std::to_string(tokens) + "/d:" + std::to_string(d);
        benchmark::RegisterBenchmark(name.c_str(), peer, one, tokens, d);
      }
}

/// One size grows, the others are those of the cases.
void add_sweeps() {
  constexpr Index tokens = 512, d = 768;
  LayerCase sweep = support::layer_case("top2"), ranks = support::layer_case("rankwise");
  sweep.name = "sweep_E";
  for (sweep.experts = 8; sweep.experts <= 1024; sweep.experts *= 2) add({sweep, tokens, d});
  sweep.name = "sweep_k", sweep.experts = 8;
  for (sweep.chosen = 1; sweep.chosen <= 8; sweep.chosen *= 2) add({sweep, tokens, d});
  sweep.name = "sweep_r", sweep.chosen = 2;
  for (sweep.rank = 1; sweep.rank <= 256; sweep.rank *= 4) add({sweep, tokens, d});
  ranks.name = "sweep_R";
  for (ranks.experts = 16; ranks.experts <= 1024; ranks.experts *= 4) add({ranks, tokens, d});
  for (const char* name : {"plain", "top2"})
    for (const int threads : {2, 5}) add({support::layer_case(name), tokens, d, threads});
}

[[maybe_unused]] const bool registered = [] {
  add_cases();
  add_peers();
  add_sweeps();
  return true;
}();

}  // namespace
