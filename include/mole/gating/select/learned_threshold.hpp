// SPDX-License-Identifier: MIT
// LearnedThreshold: the selection of all experts above a learned threshold per token.
#pragma once

#include "mole/gating/select/select_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Keeps scores >= t, where t is the token's own threshold in the column after the experts (SoftmaxWithThreshold).
///
///   scores [N x (E + 1)]   ->   from 0 to E experts per token
///
/// O(E), and the sorting of the kept experts.
/// Source: Liu and Luo 2024 (AdaMoLE), arXiv:2405.00361.
struct LearnedThreshold {
  Index max_chosen(Index experts) const { return experts; }

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    const T least = scores[std::size_t(experts)];
    return choose_those(scores, experts, chosen, [&](T score) { return score >= least; });
  }
};

static_assert(SelectPolicy<LearnedThreshold, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
