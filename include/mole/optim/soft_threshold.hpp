// SPDX-License-Identifier: MIT
// soft_threshold(): the proximal step that drives gates to exactly zero.
#pragma once

#include "mole/core/error.hpp"

#include <cmath>
#include <concepts>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What happens to values near the threshold xi.
enum class ThresholdMode {
  exact,      ///< the proximal step of xi |v|:  sign(v) max(|v| - xi, 0)
  dead_zone,  ///< as SoRA and CoDyRA released it: |v| < 2 xi gives 0, but |v| = xi stays
};

/// Shrinks each of `values` by `threshold` = xi, and those near 0 to 0. For use after an optimizer's step on the gates.
///
///   exact        |v| <= xi: 0             else v - sign(v) xi
///   dead_zone    v > xi: v - xi           then v < -xi: v + xi          then |v| < xi: 0, of the shrunk v
///
/// dead_zone is a soft threshold followed by a hard one: 1.5 xi gives 0, 2 xi gives xi. Only `exact` minimizes
/// (v - w)^2 / 2 + xi |w| over w. The paper's xi is the learning rate times lambda; SoRA's release uses lambda itself.
/// xi = 0 changes nothing, NaN stays NaN. Throws Error(option) unless xi >= 0.  O(size), no allocation.
/// Source: Ding et al. 2023 (SoRA), arXiv:2311.11696; TsinghuaC3I/SoRA, src/sparse_optimizer.py.
template <std::floating_point T>
void soft_threshold(std::span<T> values, double threshold, ThresholdMode mode = ThresholdMode::exact) {
  require(threshold >= 0, ErrorCode::option, "soft_threshold: expected a threshold of at least 0, found ", threshold);
  const T xi = T(threshold);
  for (T& v : values) {
    if (v > xi)
      v -= xi;
    else if (v < -xi)
      v += xi;
    else if (mode == ThresholdMode::exact && xi > 0 && std::abs(v) <= xi)
      v = 0;
    if (mode == ThresholdMode::dead_zone && std::abs(v) < xi) v = 0;
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
