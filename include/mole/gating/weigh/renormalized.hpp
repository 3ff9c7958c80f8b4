// SPDX-License-Identifier: MIT
// Renormalized: gates that sum to a constant over the chosen experts.
#pragma once

#include "mole/gating/weigh/shares.hpp"

namespace mole {

/// gate_e = sum * score_e / (sum of the chosen scores); all 0 if the chosen scores sum to 0.
///
///   Mixtral       {}: after Softmax this equals the softmax of the chosen logits
///   SMoRA         {.sum = k}, over sigmoids that include a bias
///   DeepSeek-V3   {.sum = 2.5}, over sigmoids
///
/// Source: Jiang et al. 2024 (Mixtral), arXiv:2401.04088, eq. 1; DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437,
/// eq. 13; StyxXuan/smora.
struct Renormalized {
  double sum = 1;

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    detail::Shares<T>(scores, chosen, T(sum)).forward(gates);
  }

  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> gates,
                std::span<const T> d_gates, std::span<T> d_scores) const {
    detail::Shares<T>(scores, chosen, T(sum)).backward(gates, d_gates, d_scores);
  }
};

static_assert(WeighPolicy<Renormalized, float>);

}  // namespace mole
