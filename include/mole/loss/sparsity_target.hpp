// SPDX-License-Identifier: MIT
// sparsity_target(): the loss that steers a learned sparsity towards a number of experts per token.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/loss/column_behind_experts.hpp"

#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of sparsity_target().
struct SparsityTargetOptions {
  double coefficient = 1;
  Index k = 2;  ///< the most experts per token
};

namespace detail {

/// The smallest lambda at which Sparsegen gives at most k experts a score above 0:
///     1 - (sum of the k largest logits - k * the next largest)
/// Finds them one after the other: no memory, O(k E).
template <class T>
double lambda_for(std::span<const T> logits, Index k) {
  double sum = 0;
  int last = -1;
  for (Index rank = 0; rank <= k; ++rank) {
    const auto at = [&](int e) { return logits[std::size_t(e)]; };
    int next = -1;
    for (int e = 0; e < int(logits.size()); ++e) {
      if (last >= 0 && !chosen_before(at(last), last, at(e), e)) continue;  // already counted
      if (next < 0 || chosen_before(at(e), e, at(next), next)) next = e;
    }
    sum += (rank < k ? 1 : -double(k)) * double(at(next));
    last = next;
  }
  return 1 - sum;
}

}  // namespace detail

/// coefficient * mean over tokens of max(lower_n - lambda_n, 0)
///
///   lambda [N]: the column of the scores after the experts (LearnedSparsegen)
///   lower_n = 1 - (sum of the k largest logits - k * the next largest), a constant
///
/// From lambda = lower up, a token has at most k experts. Adds d_lambda = -coefficient / T if lambda is below lower.
/// Masked tokens do not count; 0 when none counts. A token that excludes all but k experts adds nothing.
/// Throws Error(option) unless 1 <= k < E, and for a coefficient beyond float (in_float_range); Error(shape) for scores
/// without that column.  O(N k E), no allocation.
/// Source: Zhuang et al. 2025 (LD-MoLE), arXiv:2509.25684; eshentw/LD-MoLE (lambda_reg_k2).
template <class T>
double sparsity_target(Trace<T>& trace, const SparsityTargetOptions& options = {}) {
  const Index experts = trace.scored_experts();
  require(options.k >= 1 && options.k < experts, ErrorCode::option, "sparsity_target: expected k from 1 to less than ",
          experts, " experts, found ", options.k);
  detail::require_coefficient("sparsity_target", options.coefficient);
  detail::require_column_behind_experts("sparsity_target", trace);
  const Index tokens = trace.counted_tokens();
  const double share = options.coefficient / double(tokens);
  double value = 0;
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    const std::span<const T> logits = std::as_const(trace).logits().row(n).first(std::size_t(experts));
    const double missing = detail::lambda_for(logits, options.k) - double(trace.scores()(n, experts));
    if (!(missing > 0)) continue;
    value += share * missing;
    trace.d_scores()(n, experts) -= T(share);
  }
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
