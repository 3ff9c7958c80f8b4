// SPDX-License-Identifier: MIT
// Sparsegen: scores on the simplex, many of them exactly zero.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/score/score_policy.hpp"

#include <algorithm>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = the point p of the simplex that minimizes |p - logits|^2 - lambda |p|^2
///       = max(logit - tau, 0) / (1 - lambda),   tau such that the scores sum to 1
///
/// lambda = 0 is sparsemax; as lambda nears 1 one expert is left, towards -infinity all become equal. Logits of
/// -infinity and NaN get 0; a token without others gets 0 everywhere. Computed relative to the largest logit, so that
/// an offset of all logits changes nothing. Throws Error(option) unless -1e30 <= lambda < 1. O(E) for each support that
/// is tried, usually two or three; no sorting. Source: Laha et al. 2018, arXiv:1810.11975, eq. 6; Martins and Astudillo
/// 2016 (sparsemax), arXiv:1602.02068.
struct Sparsegen {
  static constexpr double least = -1e30;  ///< lambda, with which all scores are equal
  double lambda = 0;

  void check(Index) const {
    require(lambda >= least && lambda < 1, ErrorCode::option,
            "Sparsegen: expected a lambda from -1e30 to below 1, found ", lambda);
  }

  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    T largest = std::numeric_limits<T>::lowest();
    for (T logit : logits) largest = std::max(largest, logit);  // passes over NaN, wherever it stands
    const T spread = T(1 - lambda), tau = threshold(logits, largest, spread);
    for (std::size_t e = 0; e < logits.size(); ++e) {
      const T logit = logits[e] - largest;
      scores[e] = logit > tau ? (logit - tau) / spread : T(0);
    }
  }

  /// d_logit_e = (d_score_e - mean of d_scores over the support) / (1 - lambda), on the support; returns
  /// d_lambda = sum over the support of d_score_e (score_e - 1 / its size) / (1 - lambda)
  template <class T>
  T backward(std::span<const T>, std::span<const T> scores, std::span<const T> d_scores, std::span<T> d_logits) const {
    const T spread = T(1 - lambda);
    T size = 0, sum = 0, weighted = 0;
    for (std::size_t e = 0; e < scores.size(); ++e)
      if (scores[e] > 0) {
        size += 1;
        sum += d_scores[e];
        weighted += d_scores[e] * scores[e];
      }
    if (size == 0) return 0;
    for (std::size_t e = 0; e < scores.size(); ++e)
      if (scores[e] > 0) d_logits[e] += (d_scores[e] - sum / size) / spread;
    return (weighted - sum / size) / spread;
  }

 private:
  /// tau - largest. Drops experts below tau until none is: each pass raises tau, but never above the largest logit.
  /// Rounding may lower tau by one unit in the last place and readmit an expert whose logit equals it; that also ends
  /// the loop. No expert is kept that lies `spread` or more below the largest.
  template <class T>
  static T threshold(std::span<const T> logits, T largest, T spread) {
    T tau = -spread, kept = -1;
    for (;;) {
      T size = 0, sum = 0;
      for (T logit : logits)
        if (logit - largest > tau) {
          size += 1;
          sum += logit - largest;
        }
      if (size == 0 || (kept > 0 && size >= kept)) return tau;
      kept = size;
      tau = (sum - spread) / size;
    }
  }
};

static_assert(ScorePolicy<Sparsegen, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
