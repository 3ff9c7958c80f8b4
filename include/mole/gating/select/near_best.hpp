// SPDX-License-Identifier: MIT
// NearBest: the selection of the best expert and of all that tie with it.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/select/select_policy.hpp"

#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Keeps every expert with score > (largest score) - tolerance.
///
///   scores [N x E]   ->   from 1 to E experts per token
///
/// Experts that cannot be told apart serve together: with Unit their outputs add up. The best expert serves whatever
/// the tolerance is, and the first one if no score is a number; NaN ties with nothing. A tolerance of 0 keeps exact
/// ties. Throws Error(option) unless the tolerance is 0 or from 1e-30 to 1e30.  O(E + K log K) for K experts. Source:
/// Nzoyem et al. 2025 (MixER), as released (ddrous/MixER): softmax, a tolerance of 1e-6, gates of 1. TopK{1} is the
/// same where nothing ties.
struct NearBest {
  double tolerance = 1e-6;

  void check(Index) const {
    require(tolerance == 0 || (tolerance > 0 && in_float_range(tolerance)), ErrorCode::option,
            "NearBest: expected a tolerance of 0, or from 1e-30 to 1e30, found ", tolerance);
  }

  Index max_chosen(Index experts) const { return experts; }
  bool takes_all(Index experts) const { return experts == 1; }

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    T best = -std::numeric_limits<T>::infinity();
    for (T score : scores.first(std::size_t(experts))) best = score > best ? score : best;
    const T least = best - T(tolerance);
    const Index kept = choose_those(scores, experts, chosen, [&](T score) { return score > least || score == best; });
    if (kept > 0) return kept;
    chosen[0] = 0;
    return 1;
  }
};

static_assert(SelectPolicy<NearBest, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
