// SPDX-License-Identifier: MIT
// TransposedBase: a linear layer over a weight that the host keeps the other way round.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/bias_view.hpp"
#include "mole/core/error.hpp"
#include "mole/core/transposed.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = x M (+ b), with M = W^T in the host's memory.
///
///   M [I x O] borrowed, bias of O numbers or none, x [N x I], y [N x O]
///
///     TransposedBase{Transposed{weight}, bias}
///
/// Nothing is copied; the host's memory must outlive the layer, and the base is frozen. For many calls on one weight
/// PackedBase{Transposed{weight}, bias} is faster, above all for few tokens. Throws Error(shape) when the bias does not
/// fit the weight.
template <class T>
class TransposedBase {
 public:
  using Scalar = T;

  struct Scratch {
    View<T> d_x;  // [N x I]
  };

  explicit TransposedBase(Transposed<T> weight, BiasView<T> bias = {}) : weight_(weight), bias_(bias.row()) {
    if (bias_) require_equal(ErrorCode::shape, "TransposedBase: size of the bias", out(), bias_.size());
  }

  Index in() const { return weight_.cols(); }
  Index out() const { return weight_.rows(); }
  Transposed<T> weight() const { return weight_; }

  Scratch scratch(const CallSize& size, Arena& arena) const { return {arena.matrix<T>(size.tokens, in())}; }

  void forward(View<const T> x, View<T> y, auto call) const {
    for (Index n = 0; n < y.rows(); ++n) {
      if (bias_)
        std::ranges::copy(bias_.row(0), y.row(n).begin());
      else
        std::ranges::fill(y.row(n), T(0));
    }
    call.execution.product_nn(x, weight_.memory(), y);
  }

  /// d_x += d_y M^T
  void backward(View<const T>, View<const T> d_y, View<T> d_x, NoParameters&, auto call) const {
    if (!d_x) return;
    const View<T> product = call.scratch.d_x.top(d_y.rows());
    call.execution.product_nt(d_y, weight_.memory(), product);
    for (Index n = 0; n < d_x.rows(); ++n)
      for (Index i = 0; i < d_x.cols(); ++i) d_x(n, i) += product(n, i);
  }

 private:
  Transposed<T> weight_;
  View<const T> bias_;
};

template <class T, class... Bias>
TransposedBase(Transposed<T>, Bias&&...) -> TransposedBase<T>;

static_assert(TrainableBasePolicy<TransposedBase<float>> && TrainableBasePolicy<TransposedBase<double>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
