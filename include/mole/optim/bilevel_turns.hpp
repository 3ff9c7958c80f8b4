// SPDX-License-Identifier: MIT
// BilevelTurns: whose turn it is when two groups of parameters are trained in alternation.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The lower problem: weights, on training data. The upper: what chooses among them, on validation data.
enum class Turn { lower, upper };

/// Turn of each iteration t = 0, 1, ...: `warmup` of the lower problem, then `lower` of it and `upper` of the upper one
/// in turn.
///
///     turns(t) == Turn::lower ? weights.step(...) : gates.step(...)
///
/// Each step takes the other group as it is: the first-order form of DARTS, whose authors find it a little worse and
/// much cheaper than differentiating through a step of the lower problem, which needs three more passes.
/// Source: Liu et al. 2019 (DARTS), arXiv:1806.09055, algorithm 1 with xi = 0.
struct BilevelTurns {
  Index warmup = 0;
  Index lower = 1;
  Index upper = 1;

  /// Throws Error(option) unless warmup >= 0, lower >= 1 and upper >= 1.
  void check() const {
    require(warmup >= 0 && lower >= 1 && upper >= 1, ErrorCode::option,
            "BilevelTurns: expected a warmup of at least 0, and lower and upper turns of at least 1, found ", warmup,
            ", ", lower, " and ", upper);
  }

  Turn operator()(Index iteration) const {
    MOLE_ASSERT(iteration >= 0 && lower >= 1 && upper >= 1);
    return iteration < warmup || (iteration - warmup) % (lower + upper) < lower ? Turn::lower : Turn::upper;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
