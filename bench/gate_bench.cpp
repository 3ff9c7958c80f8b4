// SPDX-License-Identifier: MIT
// What it costs to decide: scores, selection and weights of each token, without router and experts.
#include "bench/support/seconds_per_run.hpp"
#include "mole/core/call.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/gating/all.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/raw.hpp"
#include "mole/gating/renormalised.hpp"
#include "mole/gating/softmax.hpp"
#include "mole/gating/top_k.hpp"
#include "mole/gating/top_p.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using T = float;
using mole::Index;

constexpr Index tokens = 1024;

/// A gate, the trace that it reads and leaves, and its call: random logits and d_weight.
template <class Gating>
struct Setting {
  Setting(Gating gating_, Index experts) : gating(std::move(gating_)) {
    const Index pairs = gating.max_pairs(tokens, experts);
    scratch = gating.scratch({.tokens = tokens, .pairs = pairs});
    trace.reserve(tokens, experts, 0, pairs);
    trace.start(tokens, batch);
    mole::Rng rng(1);
    mole::fill_uniform(trace.logits(), 3, rng);
    choose();
    trace.start_d_weight();
    mole::fill_uniform(mole::View<T>(trace.d_weight(), 1, trace.routing.pairs()), 1, rng);
  }

  void choose() {
    with_call([&](auto& call) { gating.choose(trace, call); });
  }
  void backward() {
    with_call([&](auto& call) { gating.backward(trace, call); });
  }

  template <class F>
  void with_call(F f) {
    mole::Call<mole::DefaultExecution, typename Gating::Scratch> call{execution, batch, scratch};
    f(call);
  }

  Gating gating;
  mole::DefaultExecution execution;
  mole::Batch batch;
  mole::Trace<T> trace;
  typename Gating::Scratch scratch;
};

struct TopK {
  static auto setting(const benchmark::State& state) {
    return Setting(mole::Gate{mole::Softmax{}, mole::TopK{state.range(1)}, mole::Renormalised{}}, state.range(0));
  }
};
struct TopP {
  static auto setting(const benchmark::State& state) {
    return Setting(mole::Gate{mole::Softmax{}, mole::TopP{.p = 0.75, .max_k = state.range(1)}, mole::Raw{}},
                   state.range(0));
  }
};
struct All {
  static auto setting(const benchmark::State& state) {
    return Setting(mole::Gate{mole::Softmax{}, mole::All{}, mole::Raw{}}, state.range(0));
  }
};

void report(benchmark::State& state, double seconds) {
  state.counters["ns/token"] = 1e9 * seconds / double(tokens);
}

template <class Kind>
void forward(benchmark::State& state) {
  auto setting = Kind::setting(state);
  report(state, support::seconds_per_run(state, [&] { setting.choose(); }));
}

template <class Kind>
void backward(benchmark::State& state) {
  auto setting = Kind::setting(state);
  report(state, support::seconds_per_run(state, [&] { setting.backward(); }));
}

using Family = benchmark::internal::Benchmark;

void some_chosen(Family* family) {
  family->ArgNames({"E", "k"})->ArgsProduct({{8, 64, 1024}, {2, 8}});
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
