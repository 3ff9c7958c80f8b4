// SPDX-License-Identifier: MIT
// routing_divergence(): the loss that makes each token decided and all of them together balanced.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of routing_divergence(). Entropies are in shares of log E.
struct RoutingDivergenceOptions {
  double coefficient = 1;
  double balanced = 1;  ///< an entropy of the mean above this is balanced enough
  double certain = 0;   ///< an entropy of a token below this is decided enough
  double shift = 1e-9;  ///< of probabilities in their logarithms
};

/// coefficient * max(0, balanced - certain - (H_mean - H_tokens) / log E):
///
///   H_mean = min(H(mean over tokens of scores), balanced log E)      H(p) = -sum_e p_e log(p_e + shift)
///   H_tokens = mean over tokens of max(H(scores), certain log E)
///
/// H_mean - H_tokens is the Jensen-Shannon divergence of the tokens' scores, within bounds. Adds the gradient to
/// d_scores: nothing where a bound holds, or where the loss is 0. Masked tokens do not count, and excluded experts take
/// no part; 0 if no token counts or fewer than two experts do. The scores are probabilities that are not negative.
/// Throws Error(option) for a coefficient beyond float (in_float_range), and unless 0 <= certain <= balanced <= 1 and
/// 0 <= shift <= 1.  O(N E), no allocation.
/// Source: Liao et al. 2025 (HMoRA), ICLR; released as LiaoMengqi/HMoRA: gamma_balance is `balanced`, gamma_certain
/// `certain`. It has the loss of the token router's own scores, and that of its task router over the samples.
template <class T>
double routing_divergence(Trace<T>& trace, const RoutingDivergenceOptions& options = {}) {
  detail::require_coefficient("routing_divergence", options.coefficient);
  require(options.certain >= 0 && options.certain <= options.balanced && options.balanced <= 1, ErrorCode::option,
          "routing_divergence: expected 0 <= certain <= balanced <= 1, found certain = ", options.certain,
          ", balanced = ", options.balanced);
  require(options.shift >= 0 && options.shift <= 1, ErrorCode::option,
          "routing_divergence: expected a shift from 0 to 1, found ", options.shift);
  const Index tokens = trace.counted_tokens();
  Index experts = 0;
  for (Index e = 0; e < trace.scored_experts(); ++e) experts += !trace.excluded(0, trace.tokens(), e);
  if (tokens == 0 || experts < 2) return 0;

  const auto entropy = [&](double p) { return p > 0 ? -p * std::log(p + options.shift) : 0; };
  const auto d_entropy = [&](double p) { return p > 0 ? -std::log(p + options.shift) - p / (p + options.shift) : 0; };
  const auto takes_part = [&](Index n, Index e) { return trace.pass.counts(n) && !trace.excluded(n, e); };
  const auto score = [&](Index n, Index e) { return double(std::as_const(trace).scores()(n, e)); };
  const auto mean = [&](Index e) {
    double sum = 0;
    for (Index n = 0; n < trace.tokens(); ++n)
      if (takes_part(n, e)) sum += score(n, e);
    return sum / double(tokens);
  };
  const auto of_token = [&](Index n) {
    double sum = 0;
    for (Index e = 0; e < trace.scored_experts(); ++e)
      if (takes_part(n, e)) sum += entropy(score(n, e));
    return sum;
  };

  const double most = std::log(double(experts));
  double of_mean = 0, of_tokens = 0;
  for (Index e = 0; e < trace.scored_experts(); ++e) of_mean += entropy(mean(e));
  for (Index n = 0; n < trace.tokens(); ++n)
    if (trace.pass.counts(n)) of_tokens += std::max(of_token(n), options.certain * most) / double(tokens);
  const double divergence = std::min(of_mean, options.balanced * most) - of_tokens;
  const double missing = options.balanced - options.certain - divergence / most;
  if (!(missing > 0)) return 0;

  const double share = options.coefficient / (most * double(tokens));
  if (of_mean < options.balanced * most)
    for (Index e = 0; e < trace.scored_experts(); ++e) {
      const double d_mean = d_entropy(mean(e));
      for (Index n = 0; n < trace.tokens(); ++n)
        if (takes_part(n, e)) trace.d_scores()(n, e) -= T(share * d_mean);
    }
  for (Index n = 0; n < trace.tokens(); ++n)
    if (trace.pass.counts(n) && of_token(n) > options.certain * most)
      for (Index e = 0; e < trace.scored_experts(); ++e)
        if (takes_part(n, e)) trace.d_scores()(n, e) += T(share * d_entropy(score(n, e)));
  return options.coefficient * missing;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
