// SPDX-License-Identifier: MIT
// CosineSchedule: a learning rate with linear warm-up and cosine decay.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <cmath>
#include <numbers>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The learning rate at each step.
///
///   peak * step / warmup_steps                                        from step 0 to warmup_steps
///   floor + (peak - floor) / 2 * (1 + cos(pi * progress))             then; progress from 0 to 1 at total_steps
///   floor                                                             afterwards
///
/// At step 0 of a warm-up the rate is 0; `schedule(optimizer.steps() + 1)` starts at peak / warmup_steps instead.
/// Source: Loshchilov and Hutter 2017 (SGDR), arXiv:1608.03983, eq. 5, without restarts.
struct CosineSchedule {
  double peak = 0;
  Index warmup_steps = 0;
  Index total_steps = 1;
  double floor = 0;

  /// Throws Error(option) unless 0 <= floor <= peak, finite, and 0 <= warmup_steps < total_steps.
  void check() const {
    require(floor >= 0 && floor <= peak && std::isfinite(peak), ErrorCode::option,
            "CosineSchedule: expected 0 <= floor <= peak, found floor ", floor, " and peak ", peak);
    require(warmup_steps >= 0 && warmup_steps < total_steps, ErrorCode::option,
            "CosineSchedule: expected 0 <= warmup_steps < total_steps, found ", warmup_steps, " and ", total_steps);
  }

  double operator()(Index step) const {
    MOLE_ASSERT(step >= 0 && warmup_steps < total_steps);
    if (step >= total_steps) return floor;
    if (step < warmup_steps) return peak * double(step) / double(warmup_steps);
    const double progress = double(step - warmup_steps) / double(total_steps - warmup_steps);
    return floor + (peak - floor) / 2 * (1 + std::cos(std::numbers::pi * progress));
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
