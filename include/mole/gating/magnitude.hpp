// SPDX-License-Identifier: MIT
// Scores that are the sizes of the logits.
#pragma once

#include "mole/gating/score_policy.hpp"

#include <cmath>

namespace mole {

/// score = |logit|.
/// Source: Zou et al. 2025 (FlyLoRA), arXiv:2510.08396, eq. 8.
struct Magnitude {
  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    using std::abs;
    loops.set(
        scores, [](const auto& logit) { return abs(logit); }, logits);
  }

  /// d_logit = d_score * sign(logit), 0 at 0
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V> logits, std::span<const V>, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    loops.add(
        d_logits, [](const auto& logit, const auto& d_score) { return d_score * sign(logit); }, logits, d_scores);
  }

 private:
  template <class V>
  static V sign(const V& logit) {
    using T = kernel::ScalarOf<V>;
    const V zero(T(0));
    if constexpr (std::floating_point<V>)
      return T(logit > zero) - T(logit < zero);
    else
      return select(logit > zero, V(T(1)), select(logit < zero, V(T(-1)), zero));
  }
};

static_assert(ScorePolicy<Magnitude, float>);

}  // namespace mole
