// SPDX-License-Identifier: MIT
// Renormalized: gates that sum to a constant over the chosen experts.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/weigh/shares.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate_e = sum * score_e / (sum of the chosen scores). Where all chosen scores have vanished, and the score has a
/// log_ratio(), the shares are taken from that, so that they do not depend on the size of the scores; without it all
/// gates are 0 if the chosen scores sum to 0.
///
///   Mixtral       {}: after Softmax this equals the softmax of the chosen logits
///   SMoRA         {.sum = k}, over sigmoids that include a bias
///   DeepSeek-V3   {.sum = 2.5}, over sigmoids
///
/// Throws Error(option) unless the size of the sum is from 1e-30 to 1e30.
/// Source: Jiang et al. 2024 (Mixtral), arXiv:2401.04088, eq. 1; DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437,
/// eq. 13; StyxXuan/smora.
struct Renormalized {
  double sum = 1;

  void check(Index) const {
    require(in_float_range(sum), ErrorCode::option, "Renormalized: expected a sum of size 1e-30 to 1e30, found ", sum);
  }
  double lone_gate() const { return sum; }

  /// Are the chosen scores so small that their shares have to be taken from logarithms?
  template <class T>
  bool needs_logs(std::span<const T> scores, std::span<const int> chosen) const {
    constexpr T least = sizeof(T) == sizeof(float) ? T(1e-18) : T(1e-150);
    for (int e : chosen)
      if (const T score = scores[std::size_t(e)]; !(score >= 0 && score < least)) return false;
    return !chosen.empty();
  }
  template <class T, class Ratio>
  void forward_from_logs(const Ratio& log_ratio, std::span<const int> chosen, std::span<T> gates) const {
    detail::shares_from_logs(log_ratio, chosen, T(sum), gates);
  }
  template <class T, class Add>
  void backward_from_logs(std::span<const int> chosen, std::span<const T> gates, std::span<const T> d_gates,
                          Add add) const {
    detail::add_log_gradients(chosen, T(sum), gates, d_gates, add);
  }

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

#include "mole/core/macros_on.hpp"
