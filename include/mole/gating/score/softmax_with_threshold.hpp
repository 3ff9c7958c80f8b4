// SPDX-License-Identifier: MIT
// SoftmaxWithThreshold: softmax probabilities and a learned threshold per token.
#pragma once

#include "mole/gating/score/softmax.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = softmax over the experts; in the column after them the token's threshold, max_threshold * sigmoid(logit_E).
///
///   logits [N x (E + 1)] -> scores [N x (E + 1)]
///
/// `max_threshold` 0 stands for 1 / E, the largest value with which every token is certain to keep an expert. For
/// LearnedThreshold and Shifted. Throws Error(option) unless it is 0 or from 1e-30 to 1.
/// Source: Liu and Luo 2024 (AdaMoLE), arXiv:2405.00361, eq. 4.
struct SoftmaxWithThreshold {
  static constexpr Index extra = 1;
  double max_threshold = 0;

  void check(Index) const {
    require(max_threshold == 0 || (max_threshold >= 1e-30 && max_threshold <= 1), ErrorCode::option,
            "SoftmaxWithThreshold: expected a max_threshold of 0, or from 1e-30 to 1, found ", max_threshold);
  }

  /// log(score_e / score_f); its derivative by logit_e.
  template <class T>
  T log_ratio(std::span<const T> logits, int e, int f) const {
    return Softmax{}.log_ratio(logits, e, f);
  }
  template <class T>
  T d_log_score(std::span<const T> logits, int e) const {
    return Softmax{}.d_log_score(logits, e);
  }

  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    const std::size_t experts = logits.size() - 1;
    Softmax{}.forward(logits.first(experts), scores.first(experts));
    scores[experts] = bound<T>(experts) / (1 + std::exp(-logits[experts]));
  }

  /// d_logit_E = d_score_E score_E (1 - sigmoid(logit_E)); the others as Softmax
  template <class T>
  void backward(std::span<const T> logits, std::span<const T> scores, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    const std::size_t experts = logits.size() - 1;
    Softmax{}.backward(logits.first(experts), scores.first(experts), d_scores.first(experts), d_logits.first(experts));
    d_logits[experts] += d_scores[experts] * scores[experts] / (1 + std::exp(logits[experts]));
  }

 private:
  template <class T>
  T bound(std::size_t experts) const {
    return max_threshold == 0 ? T(1) / T(experts) : T(max_threshold);
  }
};

static_assert(ScorePolicy<SoftmaxWithThreshold, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
