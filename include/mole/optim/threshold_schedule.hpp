// SPDX-License-Identifier: MIT
// ThresholdSchedule: CoDyRA's threshold, zero at first, then rising until the task ends.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The threshold at each iteration t = 0, 1, ... of a task of `iterations`, for soft_threshold() after the step.
///
///   dense = dense_fraction iterations      step = floor((iterations - dense) / stages)
///   0                                      up to t = dense
///   kappa_j = kappa_max j / (stages - 1)   then; j counts the multiples of `step` in [dense, t], at most stages - 1
///
/// If fewer iterations than stages follow the dense ones, the threshold stays 0. It is not scaled by the learning rate
/// and applies in every iteration, not once per stage: a gate without a gradient shrinks by the sum of the thresholds.
/// Source: Lu et al. 2024 (CoDyRA), arXiv:2412.01004, as released: Artificer-AI-Lab/CoDyRA, models/codyra.py, with
/// ThresholdMode::dead_zone. There `stages` is lambda_num; the runner's kappa_max is 5e-3, the program's default 7e-4.
struct ThresholdSchedule {
  double dense_fraction = 0.5;
  double kappa_max = 5e-3;
  Index stages = 50;
  Index iterations = 500;

  /// Throws Error(option) unless 0 <= dense_fraction <= 1, kappa_max >= 0, stages >= 2 and iterations >= 1.
  void check() const {
    require(dense_fraction >= 0 && dense_fraction <= 1 && kappa_max >= 0 && std::isfinite(kappa_max), ErrorCode::option,
            "ThresholdSchedule: expected dense_fraction in [0, 1] and kappa_max of at least 0, found ", dense_fraction,
            " and ", kappa_max);
    require(stages >= 2 && iterations >= 1, ErrorCode::option,
            "ThresholdSchedule: expected at least 2 stages and at least 1 iteration, found ", stages, " and ",
            iterations);
  }

  double operator()(Index iteration) const {
    MOLE_ASSERT(iteration >= 0 && stages >= 2);
    const double dense = dense_fraction * double(iterations);
    const Index step = Index(std::floor((double(iterations) - dense) / double(stages)));
    if (double(iteration) <= dense || step == 0) return 0;
    const Index before = Index(std::ceil(dense / double(step)));  // multiples of step below `dense`
    const Index j = iteration / step - before + 1;
    return kappa_max * double(std::clamp<Index>(j, 0, stages - 1)) / double(stages - 1);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
