// SPDX-License-Identifier: MIT
// localized_balance(): LoRAMoE's constraint, by which each half of the experts serves its own kind of task.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/loss/squared_cv.hpp"

#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of localized_balance().
struct LocalizedBalanceOptions {
  std::span<const int> task_types = {};  ///< one per sequence: 1 for the first half of the experts, 0 for the second
  double blc_alpha = 0.1;                ///< how strongly the halves are separated, from 0 (not at all) to 1
  double blc_weight = 1;                 ///< the coefficient
};

/// blc_weight * CV^2 of the B E numbers   Q_be = c_be * sum over the tokens of sequence b of scores_e
///
///   c_be = 1 + blc_alpha if expert e belongs to the task of sequence b, else 1 - blc_alpha
///
/// with the unbiased variance and 1e-10 added to the squared mean, as released. With odd E the middle expert belongs to
/// the second half; a task type other than 0 and 1 has no half. Adds the gradient to d_scores. Masked tokens do not
/// count; 0 when none counts. Scores of excluded experts are left out, and Q_be where e is excluded for all of b.
/// Throws Error(shape) unless there is one task type per sequence, Error(option) for a blc_alpha beyond [0, 1] and a
/// blc_weight beyond float (in_float_range).  O(N E), no allocation.
/// Source: Dou et al. 2023 (LoRAMoE), arXiv:2312.09979; Ablustrund/LoRAMoE, peft/tuners/lora.py.
template <class T>
double localized_balance(Trace<T>& trace, const LocalizedBalanceOptions& options) {
  const Pass& pass = trace.pass;
  const Index experts = trace.scored_experts();
  detail::require_coefficient("localized_balance", options.blc_weight);
  require(options.blc_alpha >= 0 && options.blc_alpha <= 1, ErrorCode::option,
          "localized_balance: expected a blc_alpha from 0 to 1, found ", options.blc_alpha);
  require_equal(ErrorCode::shape, "localized_balance: task types", pass.sequences(), Index(options.task_types.size()));

  const auto factor = [&](Index b, Index e) {
    const int home = e < experts / 2 ? 1 : 0;
    return options.task_types[std::size_t(b)] == home ? 1 + options.blc_alpha : 1 - options.blc_alpha;
  };
  const auto for_each_token = [&](Index b, Index e, auto&& f) {
    for (Index n = pass.first_of(b); n < pass.end_of(b, trace.tokens()); ++n)
      if (pass.counts(n) && !trace.excluded(n, e)) f(n);
  };
  const auto takes_part = [&](Index i) {
    const Index b = i / experts;
    return !trace.excluded(pass.first_of(b), pass.end_of(b, trace.tokens()), i % experts);
  };
  const auto quantity = [&](Index i) {
    const Index b = i / experts, e = i % experts;
    double sum = 0;
    for_each_token(b, e, [&](Index n) { sum += double(trace.scores()(n, e)); });
    return factor(b, e) * sum;
  };

  const SquaredCv cv = SquaredCv::of(pass.sequences() * experts, true, 1e-10, quantity, takes_part);
  for (Index i = 0; i < pass.sequences() * experts; ++i) {
    const Index b = i / experts, e = i % experts;
    const T d_score = T(options.blc_weight * cv.derivative(quantity(i)) * factor(b, e));
    for_each_token(b, e, [&](Index n) { trace.d_scores()(n, e) += d_score; });
  }
  return options.blc_weight * cv.value();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
