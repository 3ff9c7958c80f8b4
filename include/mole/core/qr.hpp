// SPDX-License-Identifier: MIT
// qr(): a matrix as an orthonormal one times a triangular one.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix_products.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What qr() returns.   q [rows x k], q^T q = 1; r [k x cols], zeros below its diagonal; k = min(rows, cols)
template <class T>
struct Qr {
  Matrix<T> q, r;
};

namespace detail {

/// The power of two that brings the largest number of a matrix to [0.5, 1): exact, and squares neither overflow nor
/// vanish. Throws Error(option) unless all numbers are finite.
template <class T>
int exponent_of(const char* who, View<const T> m) {
  double largest = 0;
  for (Index r = 0; r < m.rows(); ++r)
    for (const T value : m.row(r)) {
      require(std::isfinite(value), ErrorCode::option, who, ": expected finite numbers, found ", double(value),
              " in row ", r);
      largest = std::max(largest, std::abs(double(value)));
    }
  int exponent = 0;
  std::frexp(largest, &exponent);
  return exponent;
}

/// The columns of m 2^-exponent, each of them a row.
template <class T>
Matrix<double> scaled_columns(View<const T> m, int exponent) {
  Matrix<double> columns(m.cols(), m.rows());
  for (Index r = 0; r < m.rows(); ++r)
    for (Index c = 0; c < m.cols(); ++c) columns(c, r) = std::ldexp(double(m(r, c)), -exponent);
  return columns;
}

/// Reflections H_1 ... H_k that make a matrix triangular. `columns` [cols x rows] holds its columns as rows; after it,
/// row j has column j of R up to its diagonal, and the direction of H_j from there on is in `directions` [k x rows].
///
/// A reflection acts on a few columns before the next one is read: 2.2 s for 4096 x 1024, and 4.1 s if it acts on all.
class HouseholderReflections {
 public:
  explicit HouseholderReflections(Matrix<double>& columns)
      : directions_(std::min(columns.rows(), columns.cols()), columns.cols()),
        factor_(std::size_t(directions_.rows())) {
    for (Index first = 0; first < columns.rows(); first += together) {
      const Index end = std::min(first + together, columns.rows());
      for (Index j = 0; j < std::min(end, directions_.rows()); ++j) {
        if (j >= first) start(j, columns);
        for (Index c = std::max(first, j); c < end; ++c) reflect(j, columns.view().row_data(c));
      }
    }
    for (Index j = 0; j < directions_.rows(); ++j)
      std::fill_n(columns.view().row_data(j) + j + 1, columns.cols() - j - 1, 0.0);
  }

  /// The columns of Q, each of them a row.   [k x rows]
  Matrix<double> columns_of_q() const {
    Matrix<double> q(directions_.rows(), directions_.cols());
    for (Index c = 0; c < q.rows(); ++c) q(c, c) = 1;
    for (Index first = 0; first < q.rows(); first += together) {
      const Index end = std::min(first + together, q.rows());
      for (Index j = end; j-- > 0;)
        for (Index c = std::max(first, j); c < end; ++c) reflect(j, q.view().row_data(c));
    }
    return q;
  }

 private:
  static constexpr Index together = 8;

  /// H_j = 1 - factor v v^T, v_j = 1, which takes what is left of column j to -+ its length in row j.
  void start(Index j, const Matrix<double>& columns) {
    const Index left = columns.cols() - j;
    const double* const x = columns.view().row_data(j) + j;
    if (largest_below(x, left) == 0) return;  // H_j = 1
    const double length = std::sqrt(dot(x, x, left)), first = x[0] > 0 ? -length : length;
    double* const v = directions_.view().row_data(j) + j;
    v[0] = 1;
    for (Index i = 1; i < left; ++i) v[i] = x[i] / (x[0] - first);
    factor_[std::size_t(j)] = (first - x[0]) / first;
  }
  static double largest_below(const double* x, Index size) {
    double largest = 0;
    for (Index i = 1; i < size; ++i) largest = std::max(largest, std::abs(x[i]));
    // what is so small that its square vanishes changes no digit of a matrix whose largest number is near 1
    return largest < 1e-150 ? 0 : largest;
  }
  void reflect(Index j, double* vector) const {
    const double factor = factor_[std::size_t(j)];
    if (factor == 0) return;
    const Index left = directions_.cols() - j;
    const double* const v = directions_.view().row_data(j) + j;
    const double along = factor * dot(v, vector + j, left);
    for (Index i = 0; i < left; ++i) vector[j + i] -= along * v[i];
  }

  Matrix<double> directions_;
  std::vector<double> factor_;
};

/// R of the transpose of `rows`, without Q.   rows [n x D]   ->   [min(n, D) x n], R^T R = rows rows^T
inline Matrix<double> triangle_of_rows(Matrix<double> rows) {
  const int exponent = exponent_of("qr", View<const double>(rows));
  for (double& value : rows.elements()) value = std::ldexp(value, -exponent);
  const Index k = std::min(rows.rows(), rows.cols());
  HouseholderReflections{rows};
  Matrix<double> r(k, rows.rows());
  for (Index c = 0; c < rows.rows(); ++c)
    for (Index j = 0; j <= std::min(c, k - 1); ++j) r(j, c) = std::ldexp(rows(c, j), exponent);
  return r;
}

}  // namespace detail

/// m = q r, by Householder reflections.
///
///   m [rows x cols]   ->   q [rows x k], r [k x cols], k = min(rows, cols)
///
/// Computed in double whatever T, for numbers of any size. q is orthonormal to the rounding even where m has linearly
/// dependent columns. Diagonal numbers of r have either sign, as LAPACK leaves them.
/// Throws Error(option) for a number that is not finite.  O(rows cols k); allocates copies in double.  Offline.
/// Source: Householder 1958; Golub and Van Loan, Matrix Computations, 5.2.
template <class T>
requires std::floating_point<T> Qr<T> qr(View<const T> m) {
  const int exponent = detail::exponent_of("qr", m);
  Matrix<double> columns = detail::scaled_columns(m, exponent);
  const detail::HouseholderReflections reflections(columns);
  const Matrix<double> q = reflections.columns_of_q();
  Qr<T> result{Matrix<T>(m.rows(), q.rows()), Matrix<T>(q.rows(), m.cols())};
  for (Index c = 0; c < q.rows(); ++c)
    for (Index r = 0; r < q.cols(); ++r) result.q(r, c) = T(q(c, r));
  for (Index c = 0; c < m.cols(); ++c)
    for (Index r = 0; r <= std::min(c, q.rows() - 1); ++r) result.r(r, c) = T(std::ldexp(columns(c, r), exponent));
  return result;
}
template <class T>
Qr<T> qr(const Matrix<T>& m) {
  return qr(m.view());
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
