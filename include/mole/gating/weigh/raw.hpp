// SPDX-License-Identifier: MIT
// Raw: gates that are the scores themselves, or a multiple of them.
#pragma once

#include "mole/gating/weigh/weigh_policy.hpp"

namespace mole {

/// gate = scale * score.
struct Raw {
  double scale = 1;

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const T score = scores[std::size_t(chosen[j])];
      gates[j] = kernel::is_minus_infinity(score) ? T(0) : T(scale) * score;
    }
  }

  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j)
      if (const auto e = std::size_t(chosen[j]); !kernel::is_minus_infinity(scores[e]))
        d_scores[e] += T(scale) * d_gates[j];
  }
};

static_assert(WeighPolicy<Raw, float>);

}  // namespace mole
