// SPDX-License-Identifier: MIT
// Weights that share out a fixed sum.
#pragma once

#include "mole/gating/shares.hpp"

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
    detail::Shares<T>(scores, chosen, T(total)).forward(weights);
  }

  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> weights,
                std::span<const T> d_weights, std::span<T> d_scores) const {
    detail::Shares<T>(scores, chosen, T(total)).backward(weights, d_weights, d_scores);
  }
};

static_assert(WeighPolicy<SumTo, float>);

}  // namespace mole
