// SPDX-License-Identifier: MIT
// What the tests of all presets share: a base, tokens, gradient_error().
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

}  // namespace method_checks
