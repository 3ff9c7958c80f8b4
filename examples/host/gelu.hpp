// SPDX-License-Identifier: MIT
#pragma once

// The Gaussian error linear unit in its tanh form.

#include "host/matrix.hpp"
#include "host/parallel.hpp"

namespace host {

/// y = x/2 (1 + tanh u),  u = sqrt(2/pi) (x + 0.044715 x^3), elementwise, in array expressions that Eigen vectorizes.
/// Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
template <class T>
class Gelu {
 public:
  explicit Gelu(Parallel parallel) : parallel_(std::move(parallel)) {}

  void reserve(Index tokens, Index hidden) { tanh_.resize(tokens, hidden); }

  /// x, y [N x H]
  void forward(ConstView<T> x, View<T> y);

  /// d <- dy/dx d, in place: d [N x H] comes as the gradient of y and leaves as that of x, which the last forward got.
  void backward(ConstView<T> x, View<T> d) const;

 private:
  static constexpr T slope = T(0.7978845608028654);  // sqrt(2/pi)
  static constexpr T cubic = T(0.044715);

  Matrix<T> tanh_;  // [N x H], of u, kept from forward
  Parallel parallel_;
};

template <class T>
void Gelu<T>::forward(ConstView<T> x, View<T> y) {
  for_pieces(parallel_, x.rows(), row_piece, [&](Index begin, Index count) {
    const auto x_piece = rows(x, begin, count).array();
    auto t = rows(tanh_, begin, count).array();
    t = (slope * x_piece * (T(1) + cubic * x_piece.square())).tanh();
    rows(y, begin, count).array() = T(0.5) * x_piece * (T(1) + t);
  });
}

template <class T>
void Gelu<T>::backward(ConstView<T> x, View<T> d) const {
  for_pieces(parallel_, x.rows(), row_piece, [&](Index begin, Index count) {
    const auto x_piece = rows(x, begin, count).array();
    const auto t = rows(tanh_, begin, count).array();
    const auto d_u = slope * (T(1) + T(3) * cubic * x_piece.square());
    rows(d, begin, count).array() *= T(0.5) * (T(1) + t + x_piece * (T(1) - t.square()) * d_u);
  });
}

}  // namespace host
