// SPDX-License-Identifier: MIT
// Matrices of random numbers, and comparisons of matrices, for laws and tests.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// Numbers from U(-bound, bound), the same for the same seed.
template <class T>
Matrix<T> random_matrix(Index rows, Index cols, std::uint64_t seed, double bound = 1) {
  Rng rng(seed);
  Matrix<T> matrix(rows, cols);
  fill_uniform(matrix.view(), bound, rng);
  return matrix;
}

/// The same bits: NaN is equal to itself, 0 is not equal to -0.
template <class T, class U>
bool same_bits(View<T> a, View<U> b) {
  static_assert(std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>);
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (Index r = 0; r < a.rows(); ++r)
    if (a.cols() > 0 && std::memcmp(a.row_data(r), b.row_data(r), std::size_t(a.cols()) * sizeof(*a.data())) != 0)
      return false;
  return true;
}
template <class T>
bool same_bits(const Matrix<T>& a, const Matrix<T>& b) {
  return same_bits(a.view(), b.view());
}

/// Infinite where the sizes differ or a number is NaN.
template <class T>
double largest_difference(const Matrix<T>& a, const Matrix<T>& b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; most < std::numeric_limits<double>::infinity() && i < a.elements().size(); ++i) {
    const double difference = std::abs(double(a.elements()[i]) - double(b.elements()[i]));
    most = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(most, difference);
  }
  return most;
}

/// Neither NaN nor infinity among them?
template <class T>
bool all_finite(std::span<const T> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](T v) { return std::isfinite(v); });
}

/// Rows of `matrix` in another order: row n of the result is row order[n].
template <class T>
Matrix<T> permuted(const Matrix<T>& matrix, const std::vector<Index>& order) {
  Matrix<T> result(matrix.rows(), matrix.cols());
  for (Index n = 0; n < result.rows(); ++n)
    for (Index c = 0; c < result.cols(); ++c) result(n, c) = matrix(order[std::size_t(n)], c);
  return result;
}

/// Row n by itself.   [1 x columns]
template <class T>
Matrix<T> row_of(const Matrix<T>& matrix, Index n) {
  Matrix<T> row(1, matrix.cols());
  std::copy_n(matrix.view().row_data(n), matrix.cols(), row.data());
  return row;
}

/// The largest difference of `twice` from 2 * `once`: what a gradient that accumulates leaves on its second call.
template <class T>
double doubling_error(const Matrix<T>& once, const Matrix<T>& twice) {
  Matrix<T> doubled = once;
  for (T& element : doubled.elements()) element *= 2;
  return largest_difference(doubled, twice);
}

/// 0 ... size - 1, backwards.
inline std::vector<Index> reversed(Index size) {
  std::vector<Index> order;
  for (Index n = size; n-- > 0;) order.push_back(n);
  return order;
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
