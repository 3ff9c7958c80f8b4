// SPDX-License-Identifier: MIT
// What the tests of all presets share: a base, tokens, gradient_error(), difference_from_lora().
#pragma once

#include "mole/layer/check_gradients.hpp"
#include "support/layers.hpp"

namespace method_checks {

inline const mole::Matrix<double> weight = support::random_matrix<double>(13, 11, 1);
inline const mole::Matrix<double> bias = support::random_matrix<double>(1, 13, 2);
inline const mole::Matrix<double> tokens = support::random_matrix<double>(40, 11, 2);

/// The worst relative error of the layer's gradients, with a B that matters, in training.
template <class Layer>
double gradient_error(Layer layer) {
  layer = support::with_random_b(std::move(layer));
  return mole::check_gradients(layer, {.pass = {.training = true}}).worst;
}

/// The largest difference of the layer's output from x W^T + b + s x A^T B^T, with the layer's own A and B.
template <class Layer>
double difference_from_lora(const Layer& layer, const mole::Matrix<double>& x, double scale) {
  using mole::Index;
  const auto tables = layer.experts().tables();
  const auto weights = layer.base().weights();
  mole::Matrix<double> expected(x.rows(), layer.out());
  for (Index n = 0; n < x.rows(); ++n)
    for (Index o = 0; o < layer.out(); ++o) {
      expected(n, o) = weights.bias ? weights.bias.data()[o] : 0;
      for (Index i = 0; i < layer.in(); ++i) {
        double delta = weights.weight(o, i);
        for (Index j = 0; j < tables.a.rows(); ++j) delta += scale * tables.b(j, o) * tables.a(j, i);
        expected(n, o) += delta * x(n, i);
      }
    }
  return support::largest_difference(support::output(layer, x), expected);
}

}  // namespace method_checks
