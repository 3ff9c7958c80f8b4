// SPDX-License-Identifier: MIT
// router_entropy(): the loss that makes routers more decided, or less.
#pragma once

#include "mole/core/entropy.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of router_entropy().
struct RouterEntropyOptions {
  double coefficient = 1;   ///< above 0: fewer experts per token; below 0: more
  bool normalized = false;  ///< divided by the entropy of a uniform token, which then is 1
  Entropy entropy = {};     ///< Shannon's
};

/// coefficient * mean over tokens of the entropy of scores_n, over the experts that the token does not exclude.
///
/// Adds d_score_e += coefficient (d entropy / d score_e) / T. Without a shift, scores of 0 or below contribute neither
/// value nor gradient. Masked tokens do not count; 0 when none counts. Normalized, a token with one expert adds 0.
/// Throws Error(option) for a coefficient beyond float (in_float_range), and what Entropy::check() does.  O(N E), no
/// allocation.
///
/// | published loss                | options                                                                |
/// | ----------------------------- | ---------------------------------------------------------------------- |
/// | Dynamic MoE, arXiv:2403.07652 | the default, Shannon's                                                 |
/// | DynMoLE, arXiv:2504.00661     | normalized, Entropy{.order = 1.1, .shift = 1e-5, .offset = 1e-10}      |
///
/// DynMoLE's release also counts padding.
template <class T>
double router_entropy(Trace<T>& trace, const RouterEntropyOptions& options = {}) {
  const Entropy& entropy = options.entropy;
  entropy.check("router_entropy");
  detail::require_coefficient("router_entropy", options.coefficient);
  const Index experts = trace.scored_experts();
  const Index tokens = trace.counted_tokens();
  double value = 0;
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    const bool excludes = trace.excludes(n);
    const auto takes_part = [&](std::size_t e) { return !excludes || !trace.excluded(n, Index(e)); };
    Index possible = excludes ? 0 : experts;
    for (Index e = 0; excludes && e < experts; ++e) possible += takes_part(std::size_t(e));
    if (possible < (options.normalized ? 2 : 1)) continue;
    const double most = options.normalized ? entropy.largest(possible) : 1;
    const double share = options.coefficient / (double(tokens) * most);
    const std::span<const T> scores = std::as_const(trace).scores().row(n).first(std::size_t(experts));
    const std::span<T> d_scores = trace.d_scores().row(n);
    const auto add = [&](std::size_t e, double derivative) { d_scores[e] += T(share * derivative); };
    value += share * entropy(scores, takes_part);
    entropy.derivatives(scores, takes_part, add);
  }
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
