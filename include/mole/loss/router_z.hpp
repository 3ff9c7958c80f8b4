// SPDX-License-Identifier: MIT
// router_z(): the loss that keeps logits small.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of router_z().
struct RouterZOptions {
  double coefficient = 1;
};

/// coefficient * mean over tokens of logsumexp(logits)^2, over the first E columns.
///
/// Adds d_logit_e += coefficient (2 / T) logsumexp * softmax_e. Computed in double relative to the largest logit, so
/// that logits of any size are safe; a token whose logits are all -infinity contributes nothing. Masked tokens do not
/// count; 0 when none counts. Throws Error(option) for a coefficient beyond float (in_float_range).  O(N E), no
/// allocation.
/// Source: Zoph et al. 2022 (ST-MoE), arXiv:2202.08906, eq. 5.
template <class T>
double router_z(Trace<T>& trace, const RouterZOptions& options = {}) {
  detail::require_coefficient("router_z", options.coefficient);
  const Index tokens = trace.counted_tokens();
  double value = 0;
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    const std::span<const T> logits = trace.logits().row(n).first(std::size_t(trace.scored_experts()));
    const double most = double(*std::max_element(logits.begin(), logits.end()));
    if (most == -std::numeric_limits<double>::infinity()) continue;
    double sum = 0;
    for (T logit : logits) sum += std::exp(double(logit) - most);
    const double log_sum = most + std::log(sum), share = options.coefficient / double(tokens);
    value += share * log_sum * log_sum;
    for (Index e = 0; e < trace.scored_experts(); ++e)
      trace.d_logits()(n, e) += T(share * 2 * log_sum * std::exp(double(logits[std::size_t(e)]) - most) / sum);
  }
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
