// SPDX-License-Identifier: MIT
// Weights that share out a fixed sum.
#pragma once

#include "mole/gating/renormalised.hpp"

namespace mole {

/// weight_e = total score_e / (sum of the chosen scores); all 0 where that sum is 0.
///
///   SMoRA         {k}, over sigmoids that have a bias in them
///   DeepSeek-V3   {2.5}, over sigmoids
///
/// Source: DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, eq. 13; StyxXuan/smora.
struct SumTo {
  double total = 1;

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> weights) const {
    Renormalised{}.forward(scores, chosen, weights);
    for (T& weight : weights) weight *= T(total);
  }

  /// d_score_e = (total d_weight_e - <weights, d_weights>) / sum, for the chosen
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> weights,
                std::span<const T> d_weights, std::span<T> d_scores) const {
    T sum = 0, mean = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      sum += scores[std::size_t(chosen[j])];
      mean += weights[j] * d_weights[j];
    }
    if (sum == 0) return;
    for (std::size_t j = 0; j < chosen.size(); ++j)
      d_scores[std::size_t(chosen[j])] += (T(total) * d_weights[j] - mean) / sum;
  }
};

static_assert(WeighPolicy<SumTo, float>);

}  // namespace mole
