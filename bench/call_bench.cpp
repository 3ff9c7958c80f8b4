// SPDX-License-Identifier: MIT
// What a call of a small layer costs beyond its arithmetic: checks, and what the workspace keeps for them.
//
//   price   ns of a call over those of the same arithmetic without the layer, in alternating slices
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/layer/expert_linear.hpp"
#include "tests/support/random_matrix.hpp"

namespace {

using namespace mole;

constexpr Index d = 16;

/// A small layer whose routing comes from outside; calls of it, and what they compute.
class SmallLayer {
 public:
  void apply() { layer_.apply(x_, routing_, y_, work_); }
  void apply_backward() { layer_.apply_backward(x_, routing_, d_y_, d_gate_, {}, gradients_, work_); }

  void add_experts() {
    execution_.linear(View<const float>(x_), base().weights(), y_.view(),
                      experts().down(x_, {}, routing_, call(work_.experts_scratch)));
  }
  void add_gradients() {
    experts().backward(x_, routing_, d_y_, d_gate_, {}, gradients_.experts, call(work_.experts_scratch));
    base().backward(x_, d_y_, {}, gradients_.base, call(work_.base_scratch));
  }

 private:
  using Experts = LowRank<DenseFactors<float>>;
  using Base = DenseBase<Matrix<float>>;
  using Layer = ExpertLinear<Experts, Base>;

  static Layer make() {
    Rng rng(1);
    return Layer(Experts({.in = d, .out = d, .experts = 2, .rank = 2}, rng),
                 Base(support::random_matrix<float>(d, d, 2)));
  }
  const Experts& experts() const { return layer_.experts(); }
  const Base& base() const { return layer_.base(); }
  template <class Scratch>
  Call<DefaultExecution, Scratch> call(Scratch& scratch) {
    return {execution_, work_.pass, scratch};
  }

  const Layer layer_ = make();
  const DefaultExecution execution_{};
  Matrix<float> x_ = support::random_matrix<float>(1, d, 3), d_y_ = support::random_matrix<float>(1, d, 4), y_{1, d};
  Routing<float> routing_ = Routing<float>::from_dense(support::random_matrix<float>(1, 2, 5));
  std::vector<float> d_gate_ = std::vector<float>(2);
  Layer::Workspace work_ = layer_.workspace(1);
  Layer::Gradients gradients_ = layer_.gradients();
};

template <class Whole, class Alone>
void measure(benchmark::State& state, Whole whole, Alone alone) {
  const double seconds = bench::seconds_per_run(state, whole);
  const double ratio = bench::alternating_ratio(whole, alone, 0.02);
  state.counters["price"] = 1e9 * seconds * (1 - 1 / ratio);
}

void forward(benchmark::State& state) {
  SmallLayer layer;
  measure(
      state, [&] { layer.apply(); }, [&] { layer.add_experts(); });
}
void forward_and_backward(benchmark::State& state) {
  SmallLayer layer;
  const auto whole = [&] {
    layer.apply();
    layer.apply_backward();
  };
  const auto alone = [&] {
    layer.add_experts();
    layer.add_gradients();
  };
  measure(state, whole, alone);
}

BENCHMARK(forward);
BENCHMARK(forward_and_backward);

}  // namespace
