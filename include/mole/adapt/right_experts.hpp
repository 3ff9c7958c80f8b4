// SPDX-License-Identifier: MIT
// right_experts(): which experts predict the label of a sample.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// target_e = 1 if the likeliest class of expert e is the label, else 0; if no expert is right, 1 for the one to which
/// the label is likeliest.
///
///   probabilities [E x C] of one sample   ->   targets [E], for multi_hot_bce()
///
/// Ties go to the lower class and the lower expert; NaN is the least likely. Throws Error(shape) for targets of another
/// size, Error(option) for a label that is none of the C classes, and for no expert.  O(E C), no allocation.
/// Source: Aspis et al. 2025 (DriftMoE), arXiv:2507.18464, as released (miguel-ceadar/drift-moe).
template <class T>
void right_experts(View<const std::type_identity_t<T>> probabilities, Index label, std::span<T> targets) {
  require_equal(ErrorCode::shape, "right_experts: size of the targets", probabilities.rows(), Index(targets.size()));
  require(probabilities.rows() >= 1, ErrorCode::option, "right_experts: expected at least 1 expert, found none");
  require(label >= 0 && label < probabilities.cols(), ErrorCode::option, "right_experts: expected a label from 0 to ",
          probabilities.cols() - 1, ", found ", label);
  bool any = false;
  std::size_t surest = 0;
  const auto of_label = [&](std::size_t e) { return probabilities(Index(e), label); };
  for (std::size_t e = 0; e < targets.size(); ++e) {
    const auto row = probabilities.row(Index(e));
    const T own = of_label(e);
    bool right = own == own;
    for (Index c = 0; c < probabilities.cols(); ++c)
      right = right && !(c < label ? row[std::size_t(c)] >= own : row[std::size_t(c)] > own);
    targets[e] = T(right);
    any = any || right;
    if (own > of_label(surest) || (own == own && of_label(surest) != of_label(surest))) surest = e;
  }
  if (!any) targets[surest] = 1;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
