// SPDX-License-Identifier: MIT
// modality_target(): asks tokens of each modality for its own experts.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of modality_target().
struct ModalityTargetOptions {
  double coefficient = 1;
  bool normalized = true;  ///< targets of a modality are divided by their sum, as scores of a softmax add up to 1
};

/// coefficient * mean over tokens of   sum_e | scores_ne - target_ne |
///
///   labels [N], the modality m of each token; preferred [M x E], at least 0: what m wants of e, such as 1 for each of
///   its own experts;   target_ne = preferred_me / sum of preferred_m, or preferred_me itself
///
/// A mean over tokens weighs each modality by its share of them, as released. Adds its gradient to d_scores; a score
/// that is at its target has none. Masked tokens and excluded experts do not count, 0 when none counts; a modality that
/// wants nobody asks for scores of 0. Throws Error(shape) if sizes disagree, Error(option) for a label that is no row
/// of `preferred`, for preferences that are no numbers from 0 up, or for a coefficient beyond float (in_float_range).  O(N E), no allocation.
/// Source: Uni-MoE, arXiv:2405.11273; HITsz-TMG/Uni-MoE, Uni_MoE_8e, which does not divide.
template <class T>
double modality_target(Trace<T>& trace, std::span<const int> labels, View<const std::type_identity_t<T>> preferred,
                       const ModalityTargetOptions& options = {}) {
  detail::require_coefficient("modality_target", options.coefficient);
  require_equal(ErrorCode::shape, "modality_target: labels", trace.tokens(), Index(labels.size()));
  const Index experts = trace.scored_experts();
  require_equal(ErrorCode::shape, "modality_target: experts of the preferences", experts, preferred.cols());
  for (Index n = 0; n < trace.tokens(); ++n)
    require(!trace.pass.counts(n) || (labels[std::size_t(n)] >= 0 && labels[std::size_t(n)] < preferred.rows()),
            ErrorCode::option, "modality_target: expected labels below ", preferred.rows(), ", found ",
            labels[std::size_t(n)]);
  for (Index m = 0; m < preferred.rows(); ++m)
    for (T wanted : preferred.row(m))
      require(wanted >= 0 && std::isfinite(wanted), ErrorCode::option,
              "modality_target: expected finite preferences from 0 up, found ", double(wanted));
  const double share = options.coefficient / double(std::max<Index>(1, trace.counted_tokens()));
  double value = 0;
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    const std::span<const T> wanted = preferred.row(labels[std::size_t(n)]);
    double sum = 0;
    for (T w : wanted) sum += double(w);
    const double divisor = options.normalized && sum > 0 ? sum : 1;
    for (Index e = 0; e < experts; ++e) {
      if (trace.excluded(n, e)) continue;
      const double distance = double(trace.scores()(n, e)) - double(wanted[std::size_t(e)]) / divisor;
      value += share * std::abs(distance);
      if (distance != 0) trace.d_scores()(n, e) += T(std::copysign(share, distance));
    }
  }
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
