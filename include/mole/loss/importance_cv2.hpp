// SPDX-License-Identifier: MIT
// importance_cv2(): the importance loss of the first sparse mixtures.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/loss/squared_cv.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of importance_cv2().
struct ImportanceCv2Options {
  double coefficient = 1;
  bool unbiased = true;    ///< variance by E - 1 (Tutel), or by E (the code of Shazeer et al.)
  double epsilon = 1e-10;  ///< added to the squared mean
};

/// coefficient * CV^2(importance),   importance_e = sum over tokens of gate_e
///
/// Adds the gradient to d_gate, so only chosen experts receive one. Masked tokens do not count, nor do experts that are
/// excluded for every token. 0 for one expert, and when no token counts.
/// Throws Error(option) for a coefficient beyond float (in_float_range), and unless epsilon is from 0 to 1e30.
/// O(pairs + E), and up to O(N) for an expert that is excluded; no allocation.
/// Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 6 and 7. Their load loss is load_cv2().
template <class T>
double importance_cv2(Trace<T>& trace, const ImportanceCv2Options& options = {}) {
  detail::require_coefficient("importance_cv2", options.coefficient);
  require(options.epsilon >= 0 && options.epsilon <= 1e30, ErrorCode::option,
          "importance_cv2: expected an epsilon from 0 to 1e30, found ", options.epsilon);
  const auto takes_part = [&](Index expert) { return !trace.excluded(0, trace.tokens(), expert); };
  const auto for_each_pair = [&](Index expert, auto&& f) {
    for (int p : trace.routing.pairs_of(expert))
      if (const Index n = trace.routing.token(p); trace.pass.counts(n) && !trace.excluded(n, expert)) f(p);
  };
  const auto importance = [&](Index expert) {
    double sum = 0;
    for_each_pair(expert, [&](int p) { sum += double(trace.routing.gate(p)); });
    return sum;
  };
  const SquaredCv cv = SquaredCv::of(trace.scored_experts(), options.unbiased, options.epsilon, importance, takes_part);
  const std::span<T> d_gate = trace.d_gate_of_routing("importance_cv2");
  for (Index e = 0; e < trace.scored_experts(); ++e) {
    const T d_importance = T(options.coefficient * cv.derivative(importance(e)));
    for_each_pair(e, [&](int p) { d_gate[std::size_t(p)] += d_importance; });
  }
  return options.coefficient * cv.value();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
