// SPDX-License-Identifier: MIT
// Weights that sum to one over the chosen.
#pragma once

#include "mole/gating/weigh_policy.hpp"

#include <limits>

namespace mole {

/// weight_e = score_e / (sum of the chosen scores); all 0 where that sum is 0.
///
/// After Softmax this equals the softmax of the chosen logits.
/// Source: Jiang et al. 2024 (Mixtral), arXiv:2401.04088, eq. 1.
struct Renormalised {
  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> weights) const {
    const T sum = total(scores, chosen), divisor = sum != 0 ? sum : std::numeric_limits<T>::infinity();
    for (std::size_t j = 0; j < chosen.size(); ++j) weights[j] = scores[std::size_t(chosen[j])] / divisor;
  }

  /// d_score_e = (d_weight_e - <weights, d_weights>) / sum, for the chosen
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> weights,
                std::span<const T> d_weights, std::span<T> d_scores) const {
    const T sum = total(scores, chosen);
    if (sum == 0) return;
    T mean = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) mean += weights[j] * d_weights[j];
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += (d_weights[j] - mean) / sum;
  }

 private:
  template <class T>
  static T total(std::span<const T> scores, std::span<const int> chosen) {
    T sum = 0;
    for (int e : chosen) sum += scores[std::size_t(e)];
    return sum;
  }
};

static_assert(WeighPolicy<Renormalised, float>);

}  // namespace mole
