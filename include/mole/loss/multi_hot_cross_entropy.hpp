// SPDX-License-Identifier: MIT
// multi_hot_cross_entropy(): teaches a router which experts are right for each token, several or none.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// coefficient * mean over tokens and experts of   -m log sigmoid(z) - (1 - m) log(1 - sigmoid(z))
///
///   z_ne the logits, right [N x E] the m_ne: not 0 where expert e is right for token n
///
/// Adds d_logits_ne += coefficient (sigmoid(z_ne) - m_ne) / (number of pairs in the mean). Masked tokens and excluded
/// experts do not count; 0 when none counts. Throws Error(shape) for a `right` of another size, Error(option) for a
/// coefficient beyond float (in_float_range).  O(N E), no allocation.
/// Source: DriftMoE 2025, arXiv:2507.18464; miguel-ceadar/drift-moe, driftmoe/moe_model.py.
template <class T>
double multi_hot_cross_entropy(Trace<T>& trace, View<const std::uint8_t> right, double coefficient = 1) {
  detail::require_coefficient("multi_hot_cross_entropy", coefficient);
  const Index experts = trace.scored_experts();
  require(right.rows() == trace.tokens() && right.cols() == experts, ErrorCode::shape,
          "multi_hot_cross_entropy: expected flags of [", trace.tokens(), " x ", experts, "], found [", right.rows(),
          " x ", right.cols(), "]");
  const auto for_each_pair = [&](auto&& f) {
    for (Index n = 0; n < trace.tokens(); ++n)
      if (trace.pass.counts(n))
        for (Index e = 0; e < experts; ++e)
          if (!trace.excluded(n, e)) f(n, e);
  };
  double pairs = 0, sum = 0;
  for_each_pair([&](Index, Index) { ++pairs; });
  for_each_pair([&](Index n, Index e) {
    const double z = double(trace.logits()(n, e)), small = std::exp(-std::abs(z)), m = right(n, e) != 0;
    sum += std::max(z, 0.0) - z * m + std::log1p(small);
    trace.d_logits()(n, e) += T(coefficient * ((z >= 0 ? 1 : small) / (1 + small) - m) / pairs);
  });
  return pairs > 0 ? coefficient * sum / pairs : 0;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
