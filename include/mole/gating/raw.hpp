// SPDX-License-Identifier: MIT
// Weights that are the scores themselves.
#pragma once

#include "mole/gating/weigh_policy.hpp"

namespace mole {

/// weight = score.
struct Raw {
  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> weights) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) weights[j] = scores[std::size_t(chosen[j])];
  }

  template <class T>
  void backward(std::span<const T>, std::span<const int> chosen, std::span<const T>, std::span<const T> d_weights,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += d_weights[j];
  }
};

static_assert(WeighPolicy<Raw, float>);

}  // namespace mole
