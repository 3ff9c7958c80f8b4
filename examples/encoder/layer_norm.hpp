// SPDX-License-Identifier: MIT
// LayerNorm: each token with mean 0 and variance 1, then scaled and shifted.
#pragma once

#include "encoder/execution.hpp"
#include "mole/core/view.hpp"

#include <cmath>
#include <vector>

namespace encoder {

/// y_n = gain * (x_n - mean_n) / sqrt(variance_n + eps) + bias.   x, y [N x W]; gain, bias [1 x W], frozen
template <class T>
struct LayerNorm {
  mole::View<const T> gain, bias;
  double eps = 1e-12;

  /// y may be x.
  void forward(mole::View<const T> x, mole::View<T> y, const Execution& execution) const {
    for_each_row(execution, x.rows(), [&](mole::Index n) {
      const Moments m = moments_of(x.row(n));
      for (mole::Index c = 0; c < x.cols(); ++c) y(n, c) = (x(n, c) - m.mean) * m.scale * gain(0, c) + bias(0, c);
    });
  }

  /// d <- (dy/dx)^T d, in place.   x is what forward got.
  void backward(mole::View<const T> x, mole::View<T> d, const Execution& execution) const {
    for_each_row(execution, x.rows(), [&](mole::Index n) {
      const Moments m = moments_of(x.row(n));
      T sum = 0, along = 0;
      for (mole::Index c = 0; c < x.cols(); ++c) {
        d(n, c) *= gain(0, c);
        sum += d(n, c);
        along += d(n, c) * (x(n, c) - m.mean) * m.scale;
      }
      const T size = T(x.cols());
      for (mole::Index c = 0; c < x.cols(); ++c)
        d(n, c) = m.scale * (d(n, c) - sum / size - (x(n, c) - m.mean) * m.scale * along / size);
    });
  }

 private:
  struct Moments {
    T mean, scale;
  };
  Moments moments_of(std::span<const T> row) const {
    double mean = 0, variance = 0;
    for (T element : row) mean += double(element);
    mean /= double(row.size());
    for (T element : row) variance += (double(element) - mean) * (double(element) - mean);
    return {T(mean), T(1 / std::sqrt(variance / double(row.size()) + eps))};
  }
};

}  // namespace encoder
