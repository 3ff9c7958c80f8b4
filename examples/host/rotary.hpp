// SPDX-License-Identifier: MIT
#pragma once

// Rotary positions: queries and keys are turned by an angle that grows with their position.

#include <cmath>
#include <stdexcept>

#include "host/matrix.hpp"

namespace host {

/// Turns each pair (x_j, x_{j + D/2}) of row l by the angle l * 10000^(-2j/D).  x [L x D], D even
/// Source: Su et al. 2021, arXiv:2104.09864, eq. 34; pairs taken from the two halves, as in GPT-NeoX.
template <class T>
class Rotary {
 public:
  Rotary(Index length, Index width) : cos_(length, width / 2), sin_(length, width / 2) {
    if (width % 2 != 0) throw std::invalid_argument("rotary positions need an even width per head");
    for (Index l = 0; l < length; ++l) {
      for (Index j = 0; j < width / 2; ++j) {
        const double rate = std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(width));
        cos_(l, j) = static_cast<T>(std::cos(static_cast<double>(l) * rate));
        sin_(l, j) = static_cast<T>(std::sin(static_cast<double>(l) * rate));
      }
    }
  }

  void forward(View<T> x) const { turn(x, T(1)); }

  /// The inverse turn: the transpose of a rotation.
  void backward(View<T> d_x) const { turn(d_x, T(-1)); }

 private:
  void turn(View<T> x, T sign) const {
    const Index half = cos_.cols();
    for (Index l = 0; l < x.rows(); ++l) {
      T* low = &x(l, 0);
      T* high = low + half;
      const T* c = &cos_(l, 0);
      const T* s = &sin_(l, 0);
      for (Index j = 0; j < half; ++j) {
        const T a = low[j];
        const T b = high[j];
        low[j] = a * c[j] - sign * b * s[j];
        high[j] = b * c[j] + sign * a * s[j];
      }
    }
  }

  Matrix<T> cos_;
  Matrix<T> sin_;
};

}  // namespace host
