// SPDX-License-Identifier: MIT
// What the tests of decompositions measure, in plain loops.
#pragma once

#include "support/random_matrix.hpp"

#include <vector>

namespace mole::test {

/// The largest difference of m^T m from the identity.
template <class T>
double orthonormality_error(const Matrix<T>& m) {
  double worst = 0;
  for (Index i = 0; i < m.cols(); ++i)
    for (Index j = 0; j < m.cols(); ++j) {
      double sum = i == j ? -1 : 0;
      for (Index r = 0; r < m.rows(); ++r) sum += double(m(r, i)) * double(m(r, j));
      worst = std::isnan(sum) ? std::numeric_limits<double>::infinity() : std::max(worst, std::abs(sum));
    }
  return worst;
}

template <class T>
double largest_of(const Matrix<T>& m) {
  double most = 0;
  for (T value : m.elements()) most = std::max(most, std::abs(double(value)));
  return most;
}

/// The largest difference of m from a diag(s) b, or a b without s, over the largest number of m.
template <class T>
double reconstruction_error(const Matrix<T>& m, const Matrix<T>& a, const std::vector<T>& s, const Matrix<T>& b) {
  const double unit = largest_of(m) > 0 ? largest_of(m) : 1;
  double worst = 0;
  for (Index r = 0; r < m.rows(); ++r)
    for (Index c = 0; c < m.cols(); ++c) {
      double sum = -double(m(r, c)) / unit;
      for (Index j = 0; j < a.cols(); ++j)
        sum += double(a(r, j)) * (s.empty() ? 1 / unit : double(s[std::size_t(j)]) / unit) * double(b(j, c));
      worst = std::isnan(sum) ? std::numeric_limits<double>::infinity() : std::max(worst, std::abs(sum));
    }
  return worst;
}

/// a b, of `rank` inner products of numbers in [-1, 1].
template <class T>
Matrix<T> random_of_rank(Index rows, Index cols, Index rank, std::uint64_t seed) {
  const auto a = support::random_matrix<T>(rows, rank, seed), b = support::random_matrix<T>(rank, cols, seed + 1);
  Matrix<T> m(rows, cols);
  for (Index r = 0; r < rows; ++r)
    for (Index j = 0; j < rank; ++j)
      for (Index c = 0; c < cols; ++c) m(r, c) += a(r, j) * b(j, c);
  return m;
}

}  // namespace mole::test
