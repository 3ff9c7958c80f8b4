// SPDX-License-Identifier: MIT
// SquaredCv: the squared coefficient of variation, a scale-free measure of how uneven numbers are.
#pragma once

#include "mole/core/config.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// CV^2 = V / (m^2 + epsilon) of n numbers with mean m; V is the sum of squared deviations over n - 1 (unbiased) or n.
/// 0 for fewer than two numbers.  O(n), no allocation.
struct SquaredCv {
  double size = 0, mean = 0, variance = 0, divisor = 1;  ///< divisor: n - 1 or n
  double mean_square = 1;                                ///< m^2 + epsilon

  /// Of number(0) ... number(size - 1); each is evaluated twice, so nothing has to be stored.
  template <class Number>
  static SquaredCv of(Index size, bool unbiased, double epsilon, Number&& number) {
    return of(size, unbiased, epsilon, number, [](Index) { return true; });
  }
  /// ... of those that take_part(i) alone.
  template <class Number, class TakePart>
  static SquaredCv of(Index size, bool unbiased, double epsilon, Number&& number, TakePart&& take_part) {
    SquaredCv cv;
    Index taken = 0;
    for (Index i = 0; i < size; ++i) taken += take_part(i);
    if (taken < 2) return cv;
    cv.size = double(taken);
    cv.divisor = unbiased ? cv.size - 1 : cv.size;
    for (Index i = 0; i < size; ++i)
      if (take_part(i)) cv.mean += number(i);
    cv.mean /= cv.size;
    for (Index i = 0; i < size; ++i)
      if (take_part(i)) cv.variance += (number(i) - cv.mean) * (number(i) - cv.mean);
    cv.variance /= cv.divisor;
    cv.mean_square = cv.mean * cv.mean + epsilon;
    return cv;
  }

  double value() const { return mean_square > 0 ? variance / mean_square : 0; }

  /// d value / d number = 2 (number - m) / (divisor (m^2 + epsilon)) - 2 V m / (n (m^2 + epsilon)^2)
  double derivative(double number) const {
    if (size == 0 || mean_square <= 0) return 0;
    return 2 * (number - mean) / (divisor * mean_square) - 2 * value() * mean / (size * mean_square);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
