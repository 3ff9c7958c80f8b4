// SPDX-License-Identifier: MIT
// RelativeThreshold: the selection of experts that are not far behind the best.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of the k best, keeps those with score >= ratio * (largest score); the best always.
///
///   scores [N x E], not negative   ->   from 1 to k experts per token
///
/// Throws Error(option) unless ratio is 0 or from 1e-30 to 1, and 1 <= k <= E.  Cost: choose_best.
/// Source: Lu et al. 2024, arXiv:2402.14800, which drops the second of two experts by this rule.
struct RelativeThreshold {
  double ratio = 0.5;
  Index k = 2;

  void check(Index experts) const {
    require(ratio == 0 || (ratio >= 1e-30 && ratio <= 1), ErrorCode::option,
            "RelativeThreshold: expected a ratio of 0, or from 1e-30 to 1, found ", ratio);
    require(k >= 1 && k <= experts, ErrorCode::option, "RelativeThreshold: expected k from 1 to ", experts,
            " experts, found ", k);
  }

  Index max_chosen(Index) const { return k; }
  bool takes_all(Index experts) const { return experts == 1; }

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    const auto best = chosen.first(std::size_t(k));
    choose_best(scores, experts, best);
    const T least = T(ratio) * scores[std::size_t(best[0])];
    Index kept = 1;
    while (kept < k && scores[std::size_t(best[std::size_t(kept)])] >= least) ++kept;
    return kept;
  }
};

static_assert(SelectPolicy<RelativeThreshold, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
