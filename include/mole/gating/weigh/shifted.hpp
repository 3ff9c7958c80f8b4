// SPDX-License-Identifier: MIT
// Shifted: gates in proportion to how far each score exceeds the token's threshold.
#pragma once

#include "mole/gating/weigh/shares.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate_e = (score_e - t) / (sum over the chosen of score_e - t), with t the last score; all 0 if that sum is 0.
///
/// The threshold has a gradient: lowering it lets weaker experts count for more.
/// Source: Liu and Luo 2024 (AdaMoLE), arXiv:2405.00361, eq. 5.
struct Shifted {
  double lone_gate() const { return 1; }

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    detail::Shares<T>(scores, chosen, T(1), scores.back()).forward(gates);
  }

  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> gates,
                std::span<const T> d_gates, std::span<T> d_scores) const {
    d_scores.back() -= detail::Shares<T>(scores, chosen, T(1), scores.back()).backward(gates, d_gates, d_scores);
  }
};

static_assert(WeighPolicy<Shifted, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
