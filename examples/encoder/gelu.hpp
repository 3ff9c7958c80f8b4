// SPDX-License-Identifier: MIT
// gelu(): z Phi(z), with the normal distribution Phi, of all numbers of a matrix.
#pragma once

#include "encoder/execution.hpp"
#include "encoder/vector_loop.hpp"

#include <cmath>
#include <numbers>

namespace encoder {

/// Phi(z)
template <class T, class Z>
Z normal_share(Z z) {
  using std::erf;
  return T(0.5) + T(0.5) * erf(z * T(1 / std::numbers::sqrt2));
}

/// y = z Phi(z), elementwise.   z, y [N x H]
template <class T>
void gelu(mole::View<const T> z, mole::View<T> y, const Execution& execution) {
  for_each_row(execution, z.rows(), [&](mole::Index n) {
    vector_loop(
        y.row(n), [](auto v) { return v * normal_share<T>(v); }, z.row(n));
  });
}

/// d <- dy/dz d, in place.   z is what gelu() got.
template <class T>
void gelu_backward(mole::View<const T> z, mole::View<T> d, const Execution& execution) {
  for_each_row(execution, z.rows(), [&](mole::Index n) {
    vector_loop(
        d.row(n),
        [](auto v, auto d_v) {
          using std::exp;
          const T density = T(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
          return d_v * (normal_share<T>(v) + v * density * exp(v * v * T(-0.5)));
        },
        z.row(n), std::span<const T>(d.row(n)));
  });
}

}  // namespace encoder
