// SPDX-License-Identifier: MIT
// Sigmoid: independent scores, one sigmoid per expert.
#pragma once

#include "mole/gating/score/score_policy.hpp"

#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = 1 / (1 + exp(-logit)), independently for each expert.
/// Source: DeepSeek-AI 2024, arXiv:2412.19437, eq. 15.
struct Sigmoid {
  /// log(score)
  template <class T>
  static T log_score(T logit) {
    return logit < 0 ? logit - std::log1p(std::exp(logit)) : -std::log1p(std::exp(-logit));
  }
  /// log(score_e / score_f); its derivative by logit_e.
  template <class T>
  T log_ratio(std::span<const T> logits, int e, int f) const {
    return log_score(logits[std::size_t(e)]) - log_score(logits[std::size_t(f)]);
  }
  template <class T>
  T d_log_score(std::span<const T> logits, int e) const {
    return 1 / (1 + std::exp(logits[std::size_t(e)]));
  }

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    using std::exp;
    using T = kernel::ScalarOf<V>;
    loops.set(
        scores, [](const auto& logit) { return T(1) / (T(1) + exp(-logit)); }, logits);
  }

  /// d_logit = d_score * score (1 - score)
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V>, std::span<const V> scores, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& loops = {}) const {
    using T = kernel::ScalarOf<V>;
    loops.add(
        d_logits, [](const auto& score, const auto& d_score) { return d_score * score * (T(1) - score); }, scores,
        d_scores);
  }
};

static_assert(ScorePolicy<Sigmoid, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
