// SPDX-License-Identifier: MIT
// threshold_stages(): the thresholds of a training in stages.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <cmath>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The function of the thresholds that rises evenly from stage to stage.
enum class ThresholdSpacing { linear, log_linear, exp_linear };

/// `count` thresholds from `first` to `last`, one per training, each of which continues the one before.
///
///   linear        xi_j evenly spaced
///   log_linear    exp(xi_j) evenly spaced: steps shrink
///   exp_linear    log(xi_j) evenly spaced, a geometric series: steps grow
///
/// The first and the last are exactly `first` and `last`; a single threshold is `first`.
/// Throws Error(option) unless 0 <= first <= last, finite, and count >= 1; exp_linear needs first > 0.
/// Source: TsinghuaC3I/SoRA, src/sparse_optimizer.py, whose log_linear and exp_linear are these.
inline std::vector<double> threshold_stages(ThresholdSpacing spacing, double first, double last, Index count) {
  require(first >= 0 && first <= last && std::isfinite(last) && count >= 1 &&
              (spacing != ThresholdSpacing::exp_linear || first > 0),
          ErrorCode::option,
          "threshold_stages: expected 0 <= first <= last and at least 1 stage, and first > 0 "
          "for exp_linear, found first ",
          first, ", last ", last, ", ", count, " stages");
  const auto between = [&](double share) {
    switch (spacing) {
      case ThresholdSpacing::log_linear:  // log of the line from exp(first) to exp(last), without cancellation
        return first + std::log1p(share * std::expm1(last - first));
      case ThresholdSpacing::exp_linear:
        return first * std::pow(last / first, share);
      case ThresholdSpacing::linear:
        break;
    }
    return first + share * (last - first);
  };
  std::vector<double> stages{first};
  for (Index j = 1; j < count; ++j) stages.push_back(j == count - 1 ? last : between(double(j) / double(count - 1)));
  return stages;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
