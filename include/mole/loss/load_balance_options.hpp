// SPDX-License-Identifier: MIT
// LoadBalanceOptions: what load_balance() counts, and by what it divides.
#pragma once

#include "mole/core/config.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The factor before the sum, named after the value under uniform routing with k experts per token.
enum class BalanceNorm {
  one_at_uniform,     ///< E sum_e share_e P_e,   share_e = count_e / (sum of all counts)
  k_at_uniform,       ///< E sum_e m_e P_e,       m_e = count_e / T
  without_experts,    ///< sum_e share_e P_e, so 1/E at uniform
  k_without_experts,  ///< sum_e m_e P_e, so k/E at uniform
};

/// What is counted per expert.
enum class BalanceCount {
  all_choices,             ///< its pairs in the routing, after any capacity
  first_choice,            ///< tokens with it among their `k` best scores, ties to the lower index, before any capacity
  first_choice_if_served,  ///< the same, but a token that a capacity left with nobody counts for expert 0
  gates,                   ///< the sum of its gates; the one count with a gradient
};

/// What P_e is the mean of, over all tokens, chosen or not.
enum class BalanceScore {
  scores,           ///< its scores
  above_threshold,  ///< its scores minus the token's threshold, in the column after the experts; may be negative
  gates,            ///< its gates, 0 if it is not chosen
};

/// The tokens over which counts and means are taken.
enum class BalanceScope {
  global,    ///< all tokens of all traces
  sequence,  ///< each sequence separately; then the mean over the sequences
};

/// Options of load_balance().
struct LoadBalanceOptions {
  double coefficient = 1;
  BalanceNorm norm = BalanceNorm::one_at_uniform;
  BalanceCount count = BalanceCount::all_choices;
  BalanceScore score = BalanceScore::scores;
  BalanceScope scope = BalanceScope::global;
  Index k = 1;  ///< of first_choice: how many choices of a token count
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
