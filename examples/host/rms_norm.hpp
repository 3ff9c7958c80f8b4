// SPDX-License-Identifier: MIT
#pragma once

// Root-mean-square normalization with a learned gain.

#include <cmath>

#include "host/parallel.hpp"
#include "host/parameter.hpp"

namespace host {

/// y_n = gain * x_n / rms_n,  rms_n = sqrt(mean(x_n^2) + 1e-5).  x, y [N x W], gain [1 x W]
/// Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4.
template <class T>
class RmsNorm {
 public:
  RmsNorm(Index width, Parallel parallel) : gain_(1, width, T(1)), parallel_(std::move(parallel)) {}

  void reserve(Index tokens) { inverse_rms_.resize(tokens, 1); }
  [[nodiscard]] bool trainable() const { return !gain_.frozen(); }
  void visit(const std::string& prefix, const Visitor<T>& f) { f(prefix + ".gain", gain_); }

  void forward(ConstView<T> x, View<T> y);

  /// d_x += (dy/dx)^T d_y, and the gradient of the gain unless that is frozen. x is what the last forward got.
  void backward(ConstView<T> x, ConstView<T> d_y, View<T> d_x);

 private:
  Parameter<T> gain_;
  Matrix<T> inverse_rms_;  // [N x 1], kept from forward
  Parallel parallel_;
};

template <class T>
void RmsNorm<T>::forward(ConstView<T> x, View<T> y) {
  const T width = static_cast<T>(x.cols());
  for_pieces(parallel_, x.rows(), row_piece, [&](Index begin, Index count) {
    for (Index n = begin; n < begin + count; ++n) {
      const T scale = T(1) / std::sqrt(x.row(n).squaredNorm() / width + T(1e-5));
      inverse_rms_(n) = scale;
      y.row(n) = x.row(n).cwiseProduct(gain_.value) * scale;
    }
  });
}

template <class T>
void RmsNorm<T>::backward(ConstView<T> x, ConstView<T> d_y, View<T> d_x) {
  const T width = static_cast<T>(x.cols());
  for_pieces(parallel_, x.rows(), row_piece, [&](Index begin, Index count) {
    for (Index n = begin; n < begin + count; ++n) {
      const T scale = inverse_rms_(n);
      const T along = x.row(n).cwiseProduct(gain_.value).dot(d_y.row(n));
      d_x.row(n) += scale * d_y.row(n).cwiseProduct(gain_.value) - (along * scale * scale * scale / width) * x.row(n);
    }
  });
  if (gain_.frozen()) return;
  for_pieces(parallel_, x.cols(), row_piece, [&](Index begin, Index count) {
    auto d_gain = gain_.gradient.middleCols(begin, count);
    for (Index n = 0; n < x.rows(); ++n) {
      d_gain += inverse_rms_(n) * d_y.row(n).segment(begin, count).cwiseProduct(x.row(n).segment(begin, count));
    }
  });
}

}  // namespace host
