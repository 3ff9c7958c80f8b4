// SPDX-License-Identifier: MIT
// The loss that makes routers decided, or undecided.
#pragma once

#include "mole/core/trace.hpp"

#include <cmath>

namespace mole {

/// Options of router_entropy().
struct RouterEntropy {
  double coefficient = 1;   ///< above 0: fewer experts per token; below 0: more
  bool normalised = false;  ///< divided by log E, so that a uniform token has 1
};

/// coefficient * mean over tokens of -sum_e p_e log p_e,   p_e = scores_e, over the first E columns.
///
/// Adds d_score_e -= coefficient (log p_e + 1) / T. Scores of 0 or below contribute neither value nor gradient. Tokens
/// that the mask leaves out do not count; 0 when none does, or when normalised with one expert.
/// O(N E), no allocation.
/// Source: Huang et al. 2024 (Dynamic MoE), arXiv:2403.07652.
template <class T>
double router_entropy(Trace<T>& trace, const RouterEntropy& options = {}) {
  if (options.normalised && trace.scored_experts() < 2) return 0;
  Index tokens = 0;
  for (Index n = 0; n < trace.tokens(); ++n) tokens += trace.batch.counts(n);

  const double most = options.normalised ? std::log(double(trace.scored_experts())) : 1;
  const double share = options.coefficient / (double(tokens) * most);
  double value = 0;
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.batch.counts(n)) continue;
    for (Index e = 0; e < trace.scored_experts(); ++e) {
      const double p = double(trace.scores()(n, e));
      if (p <= 0) continue;
      value -= share * p * std::log(p);
      trace.d_scores()(n, e) -= T(share * (std::log(p) + 1));
    }
  }
  return value;
}

}  // namespace mole
