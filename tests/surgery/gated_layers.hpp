// SPDX-License-Identifier: MIT
// gated_lora(): layers with gated ranks, for surgery.
#pragma once

#include "mole/mole.hpp"
#include "support/random_matrix.hpp"

namespace mole::test {

/// One gated LoRA, the same for every token, over a weight that is the host's.
template <class T, class Execution = Reference>
auto gated_lora(const Matrix<T>& weight, Index rank, Execution execution = {}) {
  Rng rng(3);
  MixtureLinear layer(
      NoRouter<T>(1), Gate{Identity{}, All{}, Unit{}},
      LowRank<GatedRanks<T>>({.in = weight.cols(), .out = weight.rows(), .rank = rank, .alpha = 16}, rng),
      DenseBase(weight.view()), std::move(execution));
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
  return layer;
}

/// The output of a layer of any kind for x.
template <class Layer, class T>
Matrix<T> output_of(const Layer& layer, const Matrix<T>& x) {
  auto work = layer.workspace(x.rows());
  Matrix<T> y(x.rows(), layer.out());
  layer.forward(x, y, work);
  return y;
}

}  // namespace mole::test
