// SPDX-License-Identifier: MIT
// Identity: the logits themselves as scores.
#pragma once

#include "mole/gating/score/score_policy.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = logit.
struct Identity {
  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& = {}) const {
    std::copy(logits.begin(), logits.end(), scores.begin());
  }

  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V>, std::span<const V>, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    loops.add(
        d_logits, [](const auto& d_score) { return d_score; }, d_scores);
  }
};

static_assert(ScorePolicy<Identity, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
