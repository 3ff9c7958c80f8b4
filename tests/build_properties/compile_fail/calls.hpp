// SPDX-License-Identifier: MIT
// What a consumer calls: a layer, forward and backward.
#pragma once

#include "parts.hpp"

inline void call_a_layer() {
  mole::MixtureLinear layer{parts::router(), parts::gate(), parts::experts(), parts::base()};
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  mole::Matrix<float> x(4, 3), y(4, 2), d_x(4, 3);
  layer.forward(x, y, work);
  layer.backward(x, y, d_x, gradients, work);
}
