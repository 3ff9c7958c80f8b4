// SPDX-License-Identifier: MIT
// routed_layer(), with_random_b(): layers that tests share, with parameters that matter.
#pragma once

#include "mole/mole.hpp"
#include "support/random_matrix.hpp"

namespace support {

/// Gives B random values, so that the experts add something; all their parameters, if there is no B among them.
template <class Layer>
Layer with_random_b(Layer layer, std::uint64_t seed = 7) {
  mole::Rng rng(seed);
  auto&& parameters = layer.experts().parameters();
  if constexpr (requires { parameters.lora_B; })
    mole::fill_uniform(parameters.lora_B.view(), 1, rng);
  else
    std::remove_cvref_t<decltype(parameters)>::for_each_tensor(
        [&](std::string_view, auto& tensor) { mole::fill_uniform(tensor.view(), 1, rng); }, parameters);
  return layer;
}

/// Sizes of a routed layer over a base of its own.
struct LayerSizes {
  mole::Index in = 11, out = 13, experts = 4, rank = 3;
  double dropout = 0;
  bool bias = false;
  std::vector<int> ranks = {};
  bool shared_down = false;
};

template <class T, class Gating, class Execution = mole::Reference>
auto routed_layer(const LayerSizes& sizes, Gating gating, Execution execution = {}) {
  mole::Rng rng(5);
  return with_random_b(mole::MixtureLinear(
      mole::LinearRouter<T>({.in = sizes.in, .experts = gating.columns(sizes.experts), .bias = sizes.bias}, rng),
      gating,
      mole::LowRank<mole::DenseFactors<T>>({.in = sizes.in,
                                            .out = sizes.out,
                                            .experts = sizes.experts,
                                            .rank = sizes.rank,
                                            .ranks = sizes.ranks,
                                            .alpha = 6,
                                            .dropout = {.rate = sizes.dropout, .stream = 1},
                                            .shared_down = sizes.shared_down},
                                           rng),
      mole::DenseBase(random_matrix<T>(sizes.out, sizes.in, 6)), std::move(execution)));
}

inline mole::Gate<mole::Softmax, mole::TopK, mole::Renormalized> top_2() {
  return {mole::Softmax{}, mole::TopK{2}, mole::Renormalized{}};
}

/// y of a layer, in a workspace of its own.
template <class Layer>
mole::Matrix<typename Layer::Scalar> output(const Layer& layer, const mole::Matrix<typename Layer::Scalar>& x,
                                            const mole::Pass& pass = {}) {
  mole::Matrix<typename Layer::Scalar> y(x.rows(), layer.out());
  auto work = layer.workspace(x.rows());
  layer.forward(x, y, work, pass);
  return y;
}

}  // namespace support
