// SPDX-License-Identifier: MIT
// modality_divergence(): sends two modalities to different experts.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <cmath>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of modality_divergence().
struct ModalityDivergenceOptions {
  double coefficient = 1;
  int from = 0, to = 1;    ///< the labels a and b of KL(a || b)
  double epsilon = 1e-10;  ///< added to both means in the logarithm, so that an expert which b never wants has one
};

/// coefficient * (1 - KL(P_a || P_b)),   KL = sum_e P_ae log((P_ae + epsilon) / (P_be + epsilon))
///
///   labels [N];   P_me = mean over the tokens of modality m of scores_e, at least 0
///
/// It has no lower bound: up to -log(epsilon) for modalities that share no expert. Adds its gradient to d_scores.
/// Masked tokens do not count, excluded experts have a score of 0; without tokens of one of the two modalities it is 0.
/// Throws Error(shape) for other than one label per token; Error(option) unless `from` and `to` differ, epsilon is from
/// 1e-30 to 1 and the coefficient within float (in_float_range).  O(N E), no allocation.
/// Source: Uni-MoE, arXiv:2405.11273; HITsz-TMG/Uni-MoE, Uni_MoE_8e.
template <class T>
double modality_divergence(Trace<T>& trace, std::span<const int> labels,
                           const ModalityDivergenceOptions& options = {}) {
  detail::require_coefficient("modality_divergence", options.coefficient);
  require_equal(ErrorCode::shape, "modality_divergence: labels", trace.tokens(), Index(labels.size()));
  require(options.from != options.to, ErrorCode::option, "modality_divergence: expected two labels, found ",
          options.from, " twice");
  require(options.epsilon >= 1e-30 && options.epsilon <= 1, ErrorCode::option,
          "modality_divergence: expected an epsilon from 1e-30 to 1, found ", options.epsilon);
  const auto for_each_token = [&](int label, auto&& f) {
    for (Index n = 0; n < trace.tokens(); ++n)
      if (trace.pass.counts(n) && labels[std::size_t(n)] == label) f(n);
  };
  const auto tokens_of = [&](int label) {
    double tokens = 0;
    for_each_token(label, [&](Index) { ++tokens; });
    return tokens;
  };
  const double of_a = tokens_of(options.from), of_b = tokens_of(options.to);
  if (of_a == 0 || of_b == 0) return 0;
  double divergence = 0;
  for (Index e = 0; e < trace.scored_experts(); ++e) {
    const auto mean = [&](int label, double tokens) {
      double sum = 0;
      for_each_token(label, [&](Index n) { sum += trace.excluded(n, e) ? 0.0 : double(trace.scores()(n, e)); });
      return sum / tokens;
    };
    const double a = mean(options.from, of_a), b = mean(options.to, of_b);
    const double ratio = std::log((a + options.epsilon) / (b + options.epsilon));
    divergence += a * ratio;
    const auto add = [&](int label, double d) {
      for_each_token(label, [&](Index n) {
        if (!trace.excluded(n, e)) trace.d_scores()(n, e) += T(d);
      });
    };
    add(options.from, -options.coefficient * (ratio + a / (a + options.epsilon)) / of_a);
    add(options.to, options.coefficient * a / (b + options.epsilon) / of_b);
  }
  return options.coefficient * (1 - divergence);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
