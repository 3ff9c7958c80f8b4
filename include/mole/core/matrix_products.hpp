// SPDX-License-Identifier: MIT
// detail::product(), detail::product_nt(), detail::transposed(), detail::converted(): small dense algebra, offline.
#pragma once

#include "mole/core/matrix.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// The same numbers in another type.
template <class To, class From>
Matrix<To> converted(View<const From> m) {
  Matrix<To> to(m.rows(), m.cols());
  for (Index r = 0; r < m.rows(); ++r)
    for (Index c = 0; c < m.cols(); ++c) to(r, c) = To(m(r, c));
  return to;
}

template <class T>
Matrix<T> transposed(View<const T> m) {
  Matrix<T> to(m.cols(), m.rows());
  for (Index r = 0; r < m.rows(); ++r)
    for (Index c = 0; c < m.cols(); ++c) to(c, r) = m(r, c);
  return to;
}
template <class T>
Matrix<T> transposed(const Matrix<T>& m) {
  return transposed(m.view());
}

/// <a, b> of two rows of `size` numbers; four sums, so that additions do not wait for each other.
inline double dot(const double* a, const double* b, Index size) {
  double sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
  Index i = 0;
  for (; i + 4 <= size; i += 4) {
    sum0 += a[i] * b[i];
    sum1 += a[i + 1] * b[i + 1];
    sum2 += a[i + 2] * b[i + 2];
    sum3 += a[i + 3] * b[i + 3];
  }
  for (; i < size; ++i) sum0 += a[i] * b[i];
  return (sum0 + sum1) + (sum2 + sum3);
}

/// a b.   a [M x K], b [K x N]
inline Matrix<double> product(View<const double> a, View<const double> b) {
  MOLE_ASSERT(a.cols() == b.rows());
  Matrix<double> c(a.rows(), b.cols());
  for (Index m = 0; m < a.rows(); ++m) {
    double* const row = c.data() + m * c.cols();
    for (Index k = 0; k < a.cols(); ++k) {
      const double factor = a(m, k);
      const double* const of_b = b.row_data(k);
      for (Index n = 0; n < c.cols(); ++n) row[n] += factor * of_b[n];
    }
  }
  return c;
}

/// a b^T.   a [M x K], b [N x K]
inline Matrix<double> product_nt(View<const double> a, View<const double> b) {
  MOLE_ASSERT(a.cols() == b.cols());
  Matrix<double> c(a.rows(), b.rows());
  for (Index m = 0; m < a.rows(); ++m)
    for (Index n = 0; n < b.rows(); ++n) c(m, n) = dot(a.row_data(m), b.row_data(n), a.cols());
  return c;
}

/// The sum of all a_ij b_ij.
inline double inner(View<const double> a, View<const double> b) {
  MOLE_ASSERT(a.rows() == b.rows() && a.cols() == b.cols());
  double sum = 0;
  for (Index r = 0; r < a.rows(); ++r) sum += dot(a.row_data(r), b.row_data(r), a.cols());
  return sum;
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
