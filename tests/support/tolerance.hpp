// SPDX-License-Identifier: MIT
// Tolerance: how far two computations of the same number may differ.
#pragma once

#include "mole/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mole::test {

/// One table for each scalar type, in units of its rounding.
///
/// `product` is per term of a sum of products of numbers in [-1, 1]: a sum of 600 such random terms has a standard
/// deviation of 8, and an addition at 8 rounds by at most 4 epsilon; most are smaller, in whatever order they are done.
/// `layer` is for a few such sums, one after the other, with nonlinear functions between them, relative to the largest
/// number.
template <class T>
struct Tolerance {
  static constexpr double product = 4 * double(std::numeric_limits<T>::epsilon());
  static constexpr double layer = 256 * double(std::numeric_limits<T>::epsilon());

  /// For a sum of `terms`.
  static constexpr double sum(Index terms) { return product * double(std::max<Index>(terms, 1)); }
};

/// The largest difference of two matrices of one shape; infinite when the shapes differ or a number is NaN.
template <class A, class B>
double difference(View<A> a, View<B> b) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (a.rows() != b.rows() || a.cols() != b.cols()) return infinite;
  double worst = 0;
  for (Index r = 0; r < a.rows(); ++r)
    for (Index c = 0; c < a.cols(); ++c) {
      const double here = std::abs(double(a(r, c)) - double(b(r, c)));
      worst = here <= infinite ? std::max(worst, here) : infinite;
    }
  return worst;
}

}  // namespace mole::test
