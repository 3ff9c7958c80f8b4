// SPDX-License-Identifier: MIT
// Raw: gates that are the scores themselves, or a multiple of them, or 1 + score.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/weigh/weigh_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate = offset + scale * score. An expert with a score of -infinity has gate 0, whatever the offset.
///
///   DeepSeekMoE, Dynamic MoE    {}: the probability
///   ProMoE                      {}: the cosine, which may be negative
///   SparseUnifiedModel          {.offset = 1}, over Identity: routers that start at 0 leave the experts as they are
///
/// Throws Error(option) unless scale and offset are 0 or of size 1e-30 to 1e30.
/// Source: He et al. 2025, arXiv:2512.02351, as released (Shwai-He/SparseUnifiedModel): 1 + logit.
struct Raw {
  double scale = 1;
  double offset = 0;

  void check(Index) const {
    require(scale == 0 || in_float_range(scale), ErrorCode::option,
            "Raw: expected a scale of 0, or of size 1e-30 to 1e30, found ", scale);
    require(offset == 0 || in_float_range(offset), ErrorCode::option,
            "Raw: expected an offset of 0, or of size 1e-30 to 1e30, found ", offset);
  }

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const T score = scores[std::size_t(chosen[j])];
      gates[j] = kernel::is_minus_infinity(score) ? T(0) : T(offset) + T(scale) * score;
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
