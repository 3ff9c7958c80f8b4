// SPDX-License-Identifier: MIT
// The cost of RoutingStats relative to the layer that it observes.
//
//   of_layer   the time of one observe() over that of the layer's forward, in alternating slices
#include "bench/layers/bench_layer.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "mole/core/random.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/stats/routing_stats.hpp"

namespace {

using mole::Index;

constexpr Index tokens = 512, d = 768;

/// The routing of top-k of random logits.
mole::Trace<float> random_trace(Index experts, Index k) {
  const mole::Gate gate{mole::Softmax{}, mole::TopK{k}, mole::Renormalized{}};
  const mole::CallSize size{
      .tokens = tokens, .pairs = gate.max_pairs(tokens, experts), .experts = experts, .columns = experts};
  mole::OwnedScratch scratch(gate, size);
  mole::Trace<float> trace(size);
  trace.start(tokens, {});
  mole::Rng rng(1);
  mole::fill_uniform(trace.logits(), 3, rng);
  const mole::DefaultExecution execution;
  gate.choose(trace, mole::Call{execution, trace.pass, *scratch});
  return trace;
}

void observe(benchmark::State& state, const bench::LayerCase& one, bool masked) {
  mole::Trace<float> trace = random_trace(one.experts, one.chosen);
  const std::vector<std::uint8_t> mask(std::size_t(tokens), 1);
  if (masked) trace.pass.token_mask = mask;
  mole::RoutingStats stats(one.experts);
  const bench::BenchLayer layer = bench_layer(one, tokens, d);
  const auto body = [&] { stats.observe(trace); };
  const double seconds = bench::seconds_per_run(state, body);
  state.counters["ns/pair"] = 1e9 * seconds / double(trace.routing.pairs());
  state.counters["of_layer"] =
      bench::alternating_ratio(body, layer.forward, std::min(0.05, seconds * double(state.iterations()) / 5));
}

const bench::LayerCase top2 = bench::layer_case("top2");
const bench::LayerCase rankwise = bench::layer_case("rankwise");

BENCHMARK_CAPTURE(observe, top2, top2, false)->Name("observe/E:8/k:2/T:512/d:768");
BENCHMARK_CAPTURE(observe, top2_masked, top2, true)->Name("observe_masked/E:8/k:2/T:512/d:768");
BENCHMARK_CAPTURE(observe, rankwise, rankwise, false)->Name("observe/E:64/k:8/T:512/d:768");
BENCHMARK_CAPTURE(observe, rankwise_masked, rankwise, true)->Name("observe_masked/E:64/k:8/T:512/d:768");

}  // namespace
