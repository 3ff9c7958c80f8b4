// SPDX-License-Identifier: MIT
// multi_hot_bce(): the loss of a router that is told which experts are right.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of multi_hot_bce().
struct MultiHotBceOptions {
  double coefficient = 1;
};

/// coefficient * mean over tokens and experts of  -(m log sigmoid(z) + (1 - m) log(1 - sigmoid(z))),  z the logits
///
///   targets m [N x E], from 0 to 1: 1 for each expert that is right for the token
///
/// Adds d_logit = coefficient (sigmoid(z) - m) / (T E). Exact for logits of any size. Masked tokens do not count; an
/// excluded expert takes no part, as if it were not among the E of its token. 0 when nothing counts.
/// Throws Error(shape) for targets of another size, Error(option) for a coefficient beyond float (in_float_range) and
/// for targets of tokens that count outside 0 to 1.  O(N E), no allocation.
/// Source: Aspis et al. 2025 (DriftMoE), arXiv:2507.18464, as released (miguel-ceadar/drift-moe).
template <class T>
double multi_hot_bce(Trace<T>& trace, View<const std::type_identity_t<T>> targets,
                     const MultiHotBceOptions& options = {}) {
  detail::require_coefficient("multi_hot_bce", options.coefficient);
  require_equal(ErrorCode::shape, "multi_hot_bce: rows of the targets", trace.tokens(), targets.rows());
  require_equal(ErrorCode::shape, "multi_hot_bce: columns of the targets", trace.scored_experts(), targets.cols());
  Index terms = 0;
  const auto for_each = [&](auto&& f) {
    for (Index n = 0; n < trace.tokens(); ++n)
      for (Index e = 0; e < targets.cols() && trace.pass.counts(n); ++e)
        if (!trace.excluded(n, e)) f(n, e, double(targets(n, e)));
  };
  for_each([&](Index n, Index, double target) {
    require(target >= 0 && target <= 1, ErrorCode::option, "multi_hot_bce: expected targets from 0 to 1, found ",
            target, " for token ", n);
    ++terms;
  });
  if (terms == 0) return 0;
  const double share = options.coefficient / double(terms);
  double value = 0;
  for_each([&](Index n, Index e, double target) {
    const double z = double(std::as_const(trace).logits()(n, e)), small = std::exp(-std::abs(z));
    value += share * (std::max(z, 0.0) - z * target + std::log1p(small));
    trace.d_logits()(n, e) += T(share * ((z >= 0 ? 1 : small) / (1 + small) - target));
  });
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
