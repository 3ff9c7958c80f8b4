// SPDX-License-Identifier: MIT
// BertLinear: a linear layer of the encoder, and what stands in its place.
#pragma once

#include "encoder/execution.hpp"
#include "mole/core/linear_weights.hpp"
#include "mole/core/view.hpp"

#include <functional>

namespace encoder {

/// y = x W^T + b, frozen, unless there is something in its place.   W [O x I], b [1 x O]; x, d_x [N x I]; y, d_y [N x
/// O]
template <class T>
struct BertLinear {
  mole::View<const T> weight, bias;

  /// Both or none: y = f(x), and d_x += (df/dx)^T d_y, unless d_x is empty, with gradients of its own.
  std::function<void(mole::View<const T> x, mole::View<T> y)> forward_instead = {};
  std::function<void(mole::View<const T> x, mole::View<const T> d_y, mole::View<T> d_x)> backward_instead = {};

  void forward(mole::View<const T> x, mole::View<T> y, const Execution& execution) const {
    if (forward_instead)
      forward_instead(x, y);
    else
      execution.linear(x, weights(), y);
  }
  void backward(mole::View<const T> x, mole::View<const T> d_y, mole::View<T> d_x, const Execution& execution) const {
    if (backward_instead)
      backward_instead(x, d_y, d_x);
    else if (d_x)
      execution.linear_backward(d_y, weights(), d_x);
  }

 private:
  mole::LinearWeights<T> weights() const { return {.weight = weight, .bias = bias}; }
};

}  // namespace encoder
