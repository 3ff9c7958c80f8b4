// SPDX-License-Identifier: MIT
// Scores that do not compete.
#pragma once

#include "mole/gating/score_policy.hpp"

#include <cmath>

namespace mole {

/// score = 1 / (1 + exp(-logit)), each expert for itself.
/// Source: DeepSeek-AI 2024, arXiv:2412.19437, eq. 15.
struct Sigmoid {
  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    for (std::size_t e = 0; e < logits.size(); ++e) scores[e] = 1 / (1 + std::exp(-logits[e]));
  }

  /// d_logit = d_score * score (1 - score)
  template <class T>
  void backward(std::span<const T>, std::span<const T> scores, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    for (std::size_t e = 0; e < scores.size(); ++e) d_logits[e] += d_scores[e] * scores[e] * (1 - scores[e]);
  }
};

static_assert(ScorePolicy<Sigmoid, float>);

}  // namespace mole
