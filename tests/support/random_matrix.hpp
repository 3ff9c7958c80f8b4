// SPDX-License-Identifier: MIT
// Matrices of random numbers, and comparisons of matrices.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace support {

template <class T>
mole::Matrix<T> random_matrix(mole::Index rows, mole::Index cols, std::uint64_t seed, double bound = 1) {
  mole::Rng rng(seed);
  mole::Matrix<T> matrix(rows, cols);
  mole::fill_uniform(matrix.view(), bound, rng);
  return matrix;
}

/// The same bits: NaN is equal to itself, 0 is not equal to -0.
template <class T, class U>
bool same_bits(mole::View<T> a, mole::View<U> b) {
  static_assert(std::is_same_v<std::remove_const_t<T>, std::remove_const_t<U>>);
  if (a.rows() != b.rows() || a.cols() != b.cols()) return false;
  for (mole::Index r = 0; r < a.rows(); ++r)
    if (a.cols() > 0 && std::memcmp(a.row_data(r), b.row_data(r), std::size_t(a.cols()) * sizeof(*a.data())) != 0)
      return false;
  return true;
}
template <class T>
bool same_bits(const mole::Matrix<T>& a, const mole::Matrix<T>& b) {
  return same_bits(a.view(), b.view());
}

template <class T>
double largest_difference(const mole::Matrix<T>& a, const mole::Matrix<T>& b) {
  double most = a.size() == b.size() ? 0 : std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; most < std::numeric_limits<double>::infinity() && i < a.elements().size(); ++i) {
    const double difference = std::abs(double(a.elements()[i]) - double(b.elements()[i]));
    most = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(most, difference);
  }
  return most;
}

template <class T>
bool all_finite(std::span<const T> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](T v) { return std::isfinite(v); });
}

/// Rows of `matrix` in another order: row n of the result is row order[n].
template <class T>
mole::Matrix<T> permuted(const mole::Matrix<T>& matrix, const std::vector<mole::Index>& order) {
  mole::Matrix<T> result(matrix.rows(), matrix.cols());
  for (mole::Index n = 0; n < result.rows(); ++n)
    for (mole::Index c = 0; c < result.cols(); ++c) result(n, c) = matrix(order[std::size_t(n)], c);
  return result;
}

/// 0 ... size - 1, backwards.
inline std::vector<mole::Index> reversed(mole::Index size) {
  std::vector<mole::Index> order;
  for (mole::Index n = size; n-- > 0;) order.push_back(n);
  return order;
}

}  // namespace support
