// SPDX-License-Identifier: MIT
// LayerResults: the results of a layer with a fixed routing over a given base.
#pragma once

#include "mole/execution/simd.hpp"
#include "support/layers.hpp"

#include <utility>

namespace mole::test {

struct LayerResults {
  Matrix<float> y, d_x, d_a;
};

/// y, d_x and the gradient of A for some random batch: the same for every base of one shape.
template <class Base, class Execution>
LayerResults layer_results(Base base, const Execution& execution) {
  constexpr Index tokens = 9;
  const Index in = base.in(), out = base.out();
  Rng rng(5);
  const auto layer = support::with_random_b(
      MixtureLinear(LinearRouter<float>({.in = in, .experts = 4}, rng), support::top_2(),
                    LowRank<DenseFactors<float>>({.in = in, .out = out, .experts = 4, .rank = 3, .alpha = 6}, rng),
                    std::move(base), execution));
  const auto x = support::random_matrix<float>(tokens, in, 11), d_y = support::random_matrix<float>(tokens, out, 12);
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients();
  LayerResults results{Matrix<float>(tokens, out), Matrix<float>(tokens, in), {}};
  layer.forward(x.view(), results.y.view(), work);
  layer.backward(x.view(), d_y.view(), results.d_x.view(), gradients, work);
  results.d_a = gradients.experts.lora_A;
  return results;
}

/// layer_results over DenseBase, compiled once for the tests of all bases.
LayerResults dense_layer_results(const Matrix<float>& weight, const Reference& execution);
LayerResults dense_layer_results(const Matrix<float>& weight, const Simd<>& execution);
LayerResults dense_layer_results(const Matrix<float>& weight, const Simd<kernel::Scalar>& execution);

}  // namespace mole::test
