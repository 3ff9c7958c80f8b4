// SPDX-License-Identifier: MIT
// importance_cv2(): the importance loss of the first sparse mixtures.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/loss/squared_cv.hpp"

namespace mole {

/// Options of importance_cv2().
struct ImportanceCv2Options {
  double coefficient = 1;
  bool unbiased = true;    ///< variance by E - 1 (Tutel), or by E (the code of Shazeer et al.)
  double epsilon = 1e-10;  ///< added to the squared mean
};

/// coefficient * CV^2(importance),   importance_e = sum over tokens of gate_e
///
/// Adds the gradient to d_gate, so only chosen experts receive one. Masked tokens do not count.
/// 0 for one expert, and when no token counts.  O(pairs + E), no allocation.
/// Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 6 and 7. Their load loss needs noisy logits and is not included.
template <class T>
double importance_cv2(Trace<T>& trace, const ImportanceCv2Options& options = {}) {
  const auto importance = [&](Index expert) {
    double sum = 0;
    for (int p : trace.routing.pairs_of(expert))
      if (trace.pass.counts(trace.routing.token(p))) sum += double(trace.routing.gate(p));
    return sum;
  };
  const SquaredCv cv = SquaredCv::of(trace.scored_experts(), options.unbiased, options.epsilon, importance);
  MOLE_ASSERT(Index(trace.d_gate().size()) == trace.routing.pairs());
  for (Index e = 0; e < trace.scored_experts(); ++e) {
    const T d_importance = T(options.coefficient * cv.derivative(importance(e)));
    for (int p : trace.routing.pairs_of(e))
      if (trace.pass.counts(trace.routing.token(p))) trace.d_gate()[std::size_t(p)] += d_importance;
  }
  return options.coefficient * cv.value();
}

}  // namespace mole
