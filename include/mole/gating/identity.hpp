// SPDX-License-Identifier: MIT
// Scores that are the logits themselves.
#pragma once

#include "mole/gating/score_policy.hpp"

#include <algorithm>

namespace mole {

/// score = logit.
struct Identity {
  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    std::copy(logits.begin(), logits.end(), scores.begin());
  }

  template <class T>
  void backward(std::span<const T>, std::span<const T>, std::span<const T> d_scores, std::span<T> d_logits) const {
    for (std::size_t e = 0; e < d_scores.size(); ++e) d_logits[e] += d_scores[e];
  }
};

static_assert(ScorePolicy<Identity, float>);

}  // namespace mole
