// SPDX-License-Identifier: MIT
// Raw: gates that are the scores themselves, or a multiple of them.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/weigh/weigh_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate = scale * score. Throws Error(option) unless the scale is 0 or of size 1e-30 to 1e30.
struct Raw {
  double scale = 1;

  void check(Index) const {
    require(scale == 0 || in_float_range(scale), ErrorCode::option,
            "Raw: expected a scale of 0, or of size 1e-30 to 1e30, found ", scale);
  }

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

#include "mole/core/macros_on.hpp"
