// SPDX-License-Identifier: MIT
// The cost of gating: score, selection and weighing per token, without router and experts.
//
//   roofline   the time to read and write logits, scores and their gradients, over the time taken
//   plain      the time over that of the Reference execution, in alternating slices
#include "bench/layers/counters.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "mole/core/call.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/execution/reference.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using T = float;
using mole::Index;

constexpr Index tokens = 1024;

/// A gate, the trace that it reads and writes, and its call: random logits and d_gate.
template <class Gating, class Execution>
struct Setting {
  Setting(Gating gating_, Index experts)
      : gating(std::move(gating_)), trace(size_for(experts)), scratch(gating, size_for(experts)) {
    trace.start(tokens, pass);
    mole::Rng rng(1);
    mole::fill_uniform(trace.logits(), 3, rng);
    choose();
    trace.start_d_gate();
    mole::fill_uniform(mole::View<T>(trace.d_gate(), 1, trace.routing.pairs()), 1, rng);
  }

  mole::CallSize size_for(Index experts) const {
    return {.tokens = tokens, .pairs = gating.max_pairs(tokens, experts), .experts = experts, .columns = experts};
  }
  void choose() { gating.choose(trace, mole::Call{execution, pass, *scratch}); }
  void backward() { gating.backward(trace, mole::Call{execution, pass, *scratch}); }

  Gating gating;
  Execution execution;
  mole::Pass pass;
  mole::Trace<T> trace;
  mole::OwnedScratch<Gating> scratch;
};

struct TopK {
  static auto gate(const benchmark::State& state) {
    return mole::Gate{mole::Softmax{}, mole::TopK{state.range(1)}, mole::Renormalized{}};
  }
};
struct TopP {
  static auto gate(const benchmark::State& state) {
    return mole::Gate{mole::Softmax{}, mole::TopP{.p = 0.75, .max_k = state.range(1)}, mole::Raw{}};
  }
};
struct All {
  static auto gate(const benchmark::State&) { return mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{}}; }
};

/// Runs f(setting) of Kind's gate under the default execution, next to Reference, over so many numbers per token and
/// expert.
template <class Kind, class F>
void run(benchmark::State& state, double numbers, F f) {
  using Gating = decltype(Kind::gate(state));
  Setting<Gating, mole::DefaultExecution> setting(Kind::gate(state), state.range(0));
  Setting<Gating, mole::Reference> plain(Kind::gate(state), state.range(0));
  const auto body = [&] { f(setting); };
  const double seconds = bench::seconds_per_run(state, body);
  state.counters["ns/token"] = 1e9 * seconds / double(tokens);
  bench::set_roofline<T>(state, {tokens, 0, sizeof(T) * numbers * double(tokens * state.range(0))}, seconds);
  state.counters["plain"] = bench::alternating_ratio(
      body, [&] { f(plain); }, std::min(0.02, seconds * double(state.iterations()) / 5));
}

/// Reads logits, writes scores.
template <class Kind>
void forward(benchmark::State& state) {
  run<Kind>(state, 2, [](auto& setting) { setting.choose(); });
}

/// Reads scores and their gradients, adds to the gradients of logits.
template <class Kind>
void backward(benchmark::State& state) {
  run<Kind>(state, 4, [](auto& setting) { setting.backward(); });
}

using Family = benchmark::internal::Benchmark;

void some_chosen(Family* family) {
  family->ArgNames({"E", "k"})->ArgsProduct({{8, 64, 1024}, {2, 8}})->ArgsProduct({{64}, {17, 32, 64}});
}
void all_chosen(Family* family) {
  family->ArgNames({"E"})->ArgsProduct({{8, 64, 1024}});
}

BENCHMARK(forward<TopK>)->Name("forward/top_k/T:1024")->Apply(some_chosen);
BENCHMARK(forward<TopP>)->Name("forward/top_p/T:1024")->Apply(some_chosen);
BENCHMARK(forward<All>)->Name("forward/all/T:1024")->Apply(all_chosen);
BENCHMARK(backward<TopK>)->Name("backward/top_k/T:1024")->Apply(some_chosen);
BENCHMARK(backward<All>)->Name("backward/all/T:1024")->Apply(all_chosen);

}  // namespace
