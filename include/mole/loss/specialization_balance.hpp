// SPDX-License-Identifier: MIT
// specialization_balance(): balances the load of experts and, beside it, how decided each token is.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/loss/router_entropy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of specialization_balance(); the defaults are those of a port, as none are published.
struct SpecializationBalanceOptions {
  double alpha = 1;     ///< of the balance
  double lambda = 0.1;  ///< of the entropy that is taken off: above 0 as printed, below 0 as the prose has it
};

/// alpha * sum_e P_e m_e - lambda * mean over tokens of H(scores_n)
///
///   P_e = mean over tokens of scores_e,   m_e = tokens that chose e / T,   H Shannon's entropy
///
/// load_balance() and router_entropy() added up, with what they say of masked tokens, excluded experts and errors. The
/// paper contradicts itself: its formula, the default here, makes scores flatter as it falls, while its text wants
/// tokens that are more decided, which is a lambda below 0. Adds its gradient to d_scores; m_e is a constant in it.
/// Source: Li et al. 2025 (LoRA-Mixer), arXiv:2507.00029.
template <class T>
double specialization_balance(Trace<T>& trace, const SpecializationBalanceOptions& options = {}) {
  detail::require_coefficient("specialization_balance", options.alpha);
  detail::require_coefficient("specialization_balance", options.lambda);
  return load_balance(trace, {.coefficient = options.alpha, .norm = BalanceNorm::k_without_experts}) +
         router_entropy(trace, {.coefficient = -options.lambda});
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
