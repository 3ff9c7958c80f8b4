// SPDX-License-Identifier: MIT
// Compares a gradient with central differences of a function.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// The largest difference between `gradient` and central differences of loss() in `numbers`, which are as before when
/// it returns. An absolute error, for gradients of order one at most; 1e-8 is what a step of 1e-5 leaves.
/// Cost: two calls of loss() for each number.
template <class Loss>
double gradient_error(std::span<double> numbers, std::span<const double> gradient, Loss&& loss, double step = 1e-5) {
  double error = 0;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double kept = numbers[i];
    numbers[i] = kept + step;
    const double above = loss();
    numbers[i] = kept - step;
    const double below = loss();
    numbers[i] = kept;
    const double difference = std::abs((above - below) / (2 * step) - gradient[i]);
    error = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(error, difference);
  }
  return error;
}

/// The largest relative error that the laws accept, in double.
constexpr double gradient_tolerance = 1e-8;

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
