// SPDX-License-Identifier: MIT
// The check of a gradient by central differences.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace mole::test {

/// The largest difference between `gradient` and central differences of loss() in `numbers`. Both are of order one at
/// most here, so it is an absolute error; 1e-8 is what a step of 1e-5 leaves.
template <class Loss>
double gradient_error(std::span<double> numbers, std::span<const double> gradient, Loss&& loss) {
  constexpr double step = 1e-5;
  double error = 0;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double kept = numbers[i];
    numbers[i] = kept + step;
    const double above = loss();
    numbers[i] = kept - step;
    const double below = loss();
    numbers[i] = kept;
    error = std::max(error, std::abs((above - below) / (2 * step) - gradient[i]));
  }
  return error;
}

constexpr double gradient_tolerance = 1e-8;

}  // namespace mole::test
