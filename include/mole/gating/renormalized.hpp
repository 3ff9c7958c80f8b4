// SPDX-License-Identifier: MIT
// Weights that sum to one over the chosen.
#pragma once

#include "mole/gating/shares.hpp"

namespace mole {

/// weight_e = score_e / (sum of the chosen scores); all 0 where that sum is 0.
///
/// After Softmax this equals the softmax of the chosen logits.
/// Source: Jiang et al. 2024 (Mixtral), arXiv:2401.04088, eq. 1.
struct Renormalized {
  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> weights) const {
    detail::Shares<T>(scores, chosen, T(1)).forward(weights);
  }

  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> weights,
                std::span<const T> d_weights, std::span<T> d_scores) const {
    detail::Shares<T>(scores, chosen, T(1)).backward(weights, d_weights, d_scores);
  }
};

static_assert(WeighPolicy<Renormalized, float>);

}  // namespace mole
