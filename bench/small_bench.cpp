// SPDX-License-Identifier: MIT
// Small layers, of audio networks and games: forward of a layer, and of the FixedLinear that is frozen from it, beside
// Eigen's product of the layer's size, for few tokens.
//
//   <layer>/T:<tokens>/d:<inputs and outputs>
//   over_eigen   time over that of y = x W^T by Eigen, in alternating slices
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "mole/fixed/freeze.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/mola.hpp"
#include "tests/support/random_matrix.hpp"

#include <Eigen/Core>

namespace {

using namespace mole;

constexpr int rank = 4, experts = 4, chosen = 2;

template <int D>
struct Small {
  explicit Small(Index t) : tokens(t), x(support::random_matrix<float>(t, D, 1)), y(t, D) {}

  void eigen() {
    using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Eigen::Map<Rows>(y.data(), tokens, D).noalias() =
        Eigen::Map<const Rows>(x.data(), tokens, D) * Eigen::Map<const Rows>(weight.data(), D, D).transpose();
  }
  auto lora_layer() const {
    Rng rng(1);
    return lora({.rank = rank}, DenseBase(Matrix<float>(weight)), rng);
  }
  auto mola_layer() const {
    Rng rng(1);
    return mola({.experts = experts, .rank = rank, .k = chosen}, DenseBase(Matrix<float>(weight)), rng);
  }

  Index tokens;
  Matrix<float> weight = support::random_matrix<float>(D, D, 2), x, y;
};

void measure(benchmark::State& state, auto& small, auto body) {
  bench::seconds_per_run(state, body);
  state.counters["over_eigen"] = bench::alternating_ratio(
      body, [&] { small.eigen(); }, 0.02);
}

template <int D>
void layer(benchmark::State& state, bool mixture) {
  Small<D> small(state.range(0));
  const auto run = [&](const auto& of) {
    auto work = of.workspace(small.tokens);
    measure(state, small, [&] { of.forward(small.x, small.y, work); });
  };
  mixture ? run(small.mola_layer()) : run(small.lora_layer());
}

template <int D>
void frozen(benchmark::State& state, bool mixture) {
  Small<D> small(state.range(0));
  const auto run = [&](const auto& fixed) {
    measure(state, small, [&] {
      for (Index n = 0; n < small.tokens; ++n) fixed.forward(small.x.view().row_data(n), small.y.view().row_data(n));
    });
  };
  if (mixture)
    run(freeze<FixedLinear<float, D, D, rank, experts, chosen>>(small.mola_layer()));
  else
    run(freeze<FixedLinear<float, D, D, rank>>(small.lora_layer()));
}

template <int D>
void add(const char* size) {
  const auto named = [&](const char* what, auto body) {
    auto* const added = benchmark::RegisterBenchmark(what, body)->ArgName("T");
    for (Index tokens : {1, 4, 16}) added->Arg(tokens);
    added->Name(std::string(what) + "/d:" + size);
  };
  named("lora", [](benchmark::State& state) { layer<D>(state, false); });
  named("mola", [](benchmark::State& state) { layer<D>(state, true); });
  named("fixed_lora", [](benchmark::State& state) { frozen<D>(state, false); });
  named("fixed_mola", [](benchmark::State& state) { frozen<D>(state, true); });
}

const bool added = (add<8>("8"), add<16>("16"), add<32>("32"), add<64>("64"), add<128>("128"), add<256>("256"), true);

}  // namespace
