// SPDX-License-Identifier: MIT
// RenormalizedOverBest: gates that are shares of the sum of a token's best scores, whoever of them serves.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/weigh/weigh_policy.hpp"

#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate_e = sum * score_e / (sum of the k largest scores), of the scores before an ExpertCapacity drops any.
///
///   scores [E], not negative   ->   gates that sum to `sum` for a token that keeps its k best, and to less otherwise
///
/// For a selection of the k best by these scores: what Renormalized gives them when it is the capacity that takes some
/// away afterwards. Experts that were dropped get a gradient, through the sum. Ties go to the lower expert index; NaN
/// and -infinity add nothing. All gates are 0 if the best scores sum to less than the least normal number. A forced
/// expert has all of the sum.
///
/// Throws Error(option) unless 1 <= k <= E, and the size of the sum is from 1e-30 to 1e30.  O(E k), no allocation.
/// Source: microsoft/Tutel (normalize_gate, for k > 1); transformers' NLLB-MoE
/// (normalize_router_prob_before_dropping).
struct RenormalizedOverBest {
  static constexpr bool reads_all = true;

  Index k = 2;
  double sum = 1;

  void check(Index experts) const {
    require(k >= 1 && k <= experts, ErrorCode::option, "RenormalizedOverBest: expected k from 1 to ", experts,
            " experts, found ", k);
    require(in_float_range(sum), ErrorCode::option,
            "RenormalizedOverBest: expected a sum of size 1e-30 to 1e30, found ", sum);
  }
  double lone_gate() const { return sum; }

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates) const {
    const T of_best = sum_of_best(scores);
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const T score = scores[std::size_t(chosen[j])];
      gates[j] = of_best == 0 || kernel::is_minus_infinity(score) ? T(0) : score / of_best * T(sum);
    }
  }

  /// d_score_e += (sum d_gate_e [e is chosen] - <gates, d_gates> [e is among the best]) / (sum of the best scores)
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> gates,
                std::span<const T> d_gates, std::span<T> d_scores) const {
    const T of_best = sum_of_best(scores);
    if (of_best == 0) return;
    T mean = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      mean += gates[j] * d_gates[j];
      if (const auto e = std::size_t(chosen[j]); !kernel::is_minus_infinity(scores[e]))
        d_scores[e] += T(sum) * d_gates[j] / of_best;
    }
    for_each_best(scores, [&](std::size_t e) { d_scores[e] -= mean / of_best; });
  }

 private:
  template <class T>
  T sum_of_best(std::span<const T> scores) const {
    T of_best = 0;
    for_each_best(scores, [&](std::size_t e) { of_best += scores[e]; });
    return of_best < std::numeric_limits<T>::min() ? T(0) : of_best;
  }

  /// Calls f(e) for the k best, or for as many as are numbers, in the order of selections. One after the other is
  /// searched, as there is no memory for k of them.
  template <class T, class F>
  void for_each_best(std::span<const T> scores, F f) const {
    std::size_t last = scores.size();
    for (Index found = 0; found < k; ++found) {
      std::size_t next = scores.size();
      for (std::size_t e = 0; e < scores.size(); ++e) {
        if (!(scores[e] > -std::numeric_limits<T>::infinity())) continue;  // or NaN
        const bool after_last =
            last == scores.size() || scores[e] < scores[last] || (scores[e] == scores[last] && e > last);
        if (after_last && (next == scores.size() || scores[e] > scores[next])) next = e;
      }
      if (next == scores.size()) return;
      f(last = next);
    }
  }
};

static_assert(WeighPolicy<RenormalizedOverBest, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
