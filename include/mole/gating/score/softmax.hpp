// SPDX-License-Identifier: MIT
// Softmax: probabilities over the experts as scores.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/score/score_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = softmax(logits / temperature) / divisor.
///
/// `divisor` is the "temperature" of Dynamic_MoE and MixLoRA-dynamic: it keeps the order and the ratios of the experts,
/// and only moves the point where their sum passes the p of a TopP.
///
/// Logits of -infinity get score 0; a token whose logits are all -infinity gets score 0 everywhere.
/// Throws Error(option) unless the temperature is from 1e-30 to 1e30 and the divisor from 1e-10 to 1e10.  O(E) per
/// token.
/// Source of `divisor`: ZhenweiAn/Dynamic_MoE; TUDB-Labs/MoE-PEFT.
struct Softmax {
  double temperature = 1;
  double divisor = 1;

  void check(Index) const {
    require(temperature > 0 && in_float_range(temperature), ErrorCode::option,
            "Softmax: expected a temperature from 1e-30 to 1e30, found ", temperature);
    require(divisor >= 1e-10 && divisor <= 1e10, ErrorCode::option,
            "Softmax: expected a divisor from 1e-10 to 1e10, found ", divisor);
  }

  /// log(score_e / score_f); its derivative by logit_e.
  template <class T>
  T log_ratio(std::span<const T> logits, int e, int f) const {
    return (logits[std::size_t(e)] - logits[std::size_t(f)]) * T(1 / temperature);
  }
  template <class T>
  T d_log_score(std::span<const T>, int) const {
    return T(1 / temperature);
  }

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    using std::exp, std::max;
    using T = kernel::ScalarOf<V>;
    const T inverse = T(1 / temperature);
    // At least the lowest finite number, so that -infinity minus it stays -infinity.
    const V most = max(loops.largest(logits), V(std::numeric_limits<T>::lowest()));
    loops.set(
        scores, [&](const auto& logit) { return exp((logit - most) * inverse); }, logits);
    // The largest logit adds 1, unless all are -infinity.
    const V scale = T(1 / divisor) / max(loops.sum(std::span<const V>(scores)), V(T(1)));
    loops.set(
        scores, [&](const auto& score) { return score * scale; }, scores);
  }

  /// d_logit_e = score_e (d_score_e - divisor <scores, d_scores>) / temperature
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V>, std::span<const V> scores, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    const auto inverse = kernel::ScalarOf<V>(1 / temperature);
    const V mean = loops.dot(scores, d_scores) * kernel::ScalarOf<V>(divisor);
    loops.add(
        d_logits, [&](const auto& score, const auto& d_score) { return score * (d_score - mean) * inverse; }, scores,
        d_scores);
  }
};

static_assert(ScorePolicy<Softmax, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
