// SPDX-License-Identifier: MIT
// Probabilities that are divided, which is not the temperature of a softmax.
#pragma once

#include "mole/gating/score/softmax.hpp"

namespace mole {

/// score = softmax(logits) / divisor.
///
/// The "temperature" of Dynamic_MoE and MixLoRA-dynamic: it keeps the order of the experts and their ratios, and moves
/// only where their sum passes the p of a TopP. Softmax{temperature} divides logits.
/// Throws Error(option) unless divisor > 0.
/// Source: ZhenweiAn/Dynamic_MoE; TUDB-Labs/MoE-PEFT.
struct DividedSoftmax {
  double divisor = 1;

  void check(Index) const {
    require(divisor > 0, ErrorCode::option, "DividedSoftmax: expected a divisor above 0, found ", divisor);
  }

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    const auto inverse = kernel::ScalarOf<V>(1 / divisor);
    Softmax{}.forward(logits, scores, loops);
    loops.set(
        scores, [&](const auto& score) { return score * inverse; }, scores);
  }

  /// d_logit_e = score_e (d_score_e - divisor <scores, d_scores>)
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V>, std::span<const V> scores, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    const V mean = loops.dot(scores, d_scores) * kernel::ScalarOf<V>(divisor);
    loops.add(
        d_logits, [&](const auto& score, const auto& d_score) { return score * (d_score - mean); }, scores, d_scores);
  }
};

static_assert(ScorePolicy<DividedSoftmax, float>);

}  // namespace mole
