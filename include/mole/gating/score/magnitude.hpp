// SPDX-License-Identifier: MIT
// Magnitude: the absolute values of the logits as scores.
#pragma once

#include "mole/gating/score/score_policy.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = |logit|; with keep_sign the logit itself, so that one type covers both readings of FlyLoRA. A logit of
/// -infinity has score -infinity: the expert is excluded.
/// Source: Zou et al. 2025 (FlyLoRA), arXiv:2510.08396: eq. 8 takes magnitudes, eq. 10 and the training release do not.
struct Magnitude {
  bool keep_sign = false;

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    if (keep_sign) return void(std::copy(logits.begin(), logits.end(), scores.begin()));
    loops.set(
        scores, [](const auto& logit) { return size(logit); }, logits);
  }

  /// d_logit = d_score * sign(logit), 0 at 0;  d_score with keep_sign
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V> logits, std::span<const V>, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    if (keep_sign)
      return loops.add(
          d_logits, [](const auto& d_score) { return d_score; }, d_scores);
    loops.add(
        d_logits, [](const auto& logit, const auto& d_score) { return d_score * sign(logit); }, logits, d_scores);
  }

 private:
  template <class V>
  static V size(const V& logit) {
    using kernel::select;
    using std::abs;
    return select(kernel::is_minus_infinity(logit), logit, V(abs(logit)));
  }
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

#include "mole/core/macros_on.hpp"
