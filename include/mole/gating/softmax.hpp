// SPDX-License-Identifier: MIT
// Scores that are probabilities.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/score_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace mole {

/// score = softmax(logits / temperature).
///
/// Logits of -infinity get score 0; a token whose logits are all -infinity gets score 0 everywhere.
/// Throws Error(option) unless temperature > 0.  O(E) a token.
struct Softmax {
  double temperature = 1;

  void check(Index) const {
    if (!(temperature > 0))
      throw Error(ErrorCode::option, "Softmax: expected a temperature above 0, found " + std::to_string(temperature));
  }

  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    const T most = *std::max_element(logits.begin(), logits.end());
    if (most == -std::numeric_limits<T>::infinity()) return std::fill(scores.begin(), scores.end(), T(0));
    T sum = 0;
    for (std::size_t e = 0; e < logits.size(); ++e) sum += scores[e] = std::exp((logits[e] - most) / T(temperature));
    for (T& score : scores) score /= sum;
  }

  /// d_logit_e = score_e (d_score_e - <scores, d_scores>) / temperature
  template <class T>
  void backward(std::span<const T>, std::span<const T> scores, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    T mean = 0;
    for (std::size_t e = 0; e < scores.size(); ++e) mean += scores[e] * d_scores[e];
    for (std::size_t e = 0; e < scores.size(); ++e) d_logits[e] += scores[e] * (d_scores[e] - mean) / T(temperature);
  }
};

static_assert(ScorePolicy<Softmax, float>);

}  // namespace mole
