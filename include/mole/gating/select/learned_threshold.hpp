// SPDX-License-Identifier: MIT
// LearnedThreshold: the selection of all experts above a learned threshold per token.
#pragma once

#include "mole/gating/select/select_policy.hpp"

namespace mole {

/// Keeps scores >= t, with t the token's own number in the column behind the experts (SoftmaxWithThreshold).
///
///   scores [N x (E + 1)]   ->   from 0 to E experts a token
///
/// Source: Liu and Luo 2024 (AdaMoLE), arXiv:2405.00361.  O(E), and the order of the kept.
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
