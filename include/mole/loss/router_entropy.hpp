// SPDX-License-Identifier: MIT
// router_entropy(): the loss that makes routers more decided, or less.
#pragma once

#include "mole/core/entropy.hpp"
#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"

#include <utility>

namespace mole {

/// Options of router_entropy().
struct RouterEntropyOptions {
  double coefficient = 1;   ///< above 0: fewer experts per token; below 0: more
  bool normalized = false;  ///< divided by the entropy of a uniform token, which then is 1
  Entropy entropy = {};     ///< Shannon's
};

/// coefficient * mean over tokens of the entropy of scores_n, over the first E columns.
///
/// Adds d_score_e += coefficient (d entropy / d score_e) / T. Without a shift, scores of 0 or below contribute neither
/// value nor gradient. Masked tokens do not count; 0 when none counts, or when normalized with one expert.
/// Throws Error(option) unless the order of the entropy is above 0.  O(N E), no allocation.
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
  require(entropy.order > 0, ErrorCode::option, "router_entropy: expected an entropy of order above 0, found ",
          entropy.order);
  const Index experts = trace.scored_experts();
  if (options.normalized && experts < 2) return 0;
  const Index tokens = trace.counted_tokens();
  const double most = options.normalized ? entropy.largest(experts) : 1;
  const double share = options.coefficient / (double(tokens) * most);
  double value = 0;
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    const std::span<const T> scores = std::as_const(trace).scores().row(n).first(std::size_t(experts));
    const std::span<T> d_scores = trace.d_scores().row(n);
    value += share * entropy(scores);
    entropy.derivatives(scores, [&](std::size_t e, double derivative) { d_scores[e] += T(share * derivative); });
  }
  return value;
}

}  // namespace mole
