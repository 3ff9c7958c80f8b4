// SPDX-License-Identifier: MIT
// Threshold: the selection of every expert with a large enough score.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/select/select_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Keeps scores >= threshold, or > threshold if `strict`; at least the min_k best.
///
///   scores [N x E]   ->   from min_k to E experts per token
///
///   MoLE with a threshold   {.threshold = 1.0 / E}: a token may get no expert, and keeps the base's output
///   sparse scores           {.threshold = 0, .strict = true}: every expert with a share (Sparsegen)
///
/// NaN is never large enough. Throws Error(option) unless 0 <= min_k <= E and `threshold` is 0, infinite, or of size
/// 1e-30 to 1e30.  O(E), and the sorting of the kept experts.
struct Threshold {
  double threshold = 0;
  bool strict = false;
  Index min_k = 0;

  void check(Index experts) const {
    require(threshold == 0 || std::isinf(threshold) || in_float_range(threshold), ErrorCode::option,
            "Threshold: expected a threshold of 0, infinite, or of size 1e-30 to 1e30, found ", threshold);
    require(min_k >= 0 && min_k <= experts, ErrorCode::option, "Threshold: expected min_k from 0 to ", experts,
            " experts, found ", min_k);
  }

  Index max_chosen(Index experts) const { return experts; }
  bool takes_all(Index experts) const { return min_k >= experts; }  // no threshold is low enough for a NaN

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    const T bound = T(threshold);
    const Index kept =
        choose_those(scores, experts, chosen, [&](T score) { return strict ? score > bound : score >= bound; });
    if (kept >= min_k) return kept;
    choose_best(scores, experts, chosen.first(std::size_t(min_k)));
    return min_k;
  }
};

static_assert(SelectPolicy<Threshold, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
