// SPDX-License-Identifier: MIT
// Weights above a threshold that the token brings with it.
#pragma once

#include "mole/gating/weigh_policy.hpp"

namespace mole {

/// weight_e = (score_e - t) / (sum over the chosen of score_e - t), with t the last score; all 0 where the sum is 0.
///
/// The threshold has a gradient: lowering it lets weaker experts count for more.
/// Source: Liu and Luo 2024 (AdaMoLE), arXiv:2405.00361, eq. 5.
struct Shifted {
  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> weights) const {
    const T sum = total(scores, chosen);
    for (std::size_t j = 0; j < chosen.size(); ++j)
      weights[j] = sum != 0 ? (scores[std::size_t(chosen[j])] - scores.back()) / sum : T(0);
  }

  /// d_score_e = (d_weight_e - <weights, d_weights>) / sum, for the chosen;   d_t = -sum_e d_score_e
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> weights,
                std::span<const T> d_weights, std::span<T> d_scores) const {
    const T sum = total(scores, chosen);
    if (sum == 0) return;
    T mean = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) mean += weights[j] * d_weights[j];
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const T d_score = (d_weights[j] - mean) / sum;
      d_scores[std::size_t(chosen[j])] += d_score;
      d_scores.back() -= d_score;
    }
  }

 private:
  template <class T>
  static T total(std::span<const T> scores, std::span<const int> chosen) {
    T sum = 0;
    for (int e : chosen) sum += scores[std::size_t(e)] - scores.back();
    return sum;
  }
};

static_assert(WeighPolicy<Shifted, float>);

}  // namespace mole
