// SPDX-License-Identifier: MIT
// load_balance(): the load-balancing losses, which differ in what they count and by what they divide.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/balance_loss.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/loss/column_behind_experts.hpp"
#include "mole/loss/load_balance_options.hpp"

#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How unevenly experts are used: a value that falls when tokens are spread over them,
///
///     coefficient * E * sum_e share_e P_e      P_e = mean over tokens of scores_e    (others: LoadBalanceOptions)
///
/// over the first E columns of the scores and the tokens that pass.counts(). Adds the gradient to d_scores, including
/// that of a threshold, or to d_gate if P is the mean of gates. Counts are constants in it, except
/// BalanceCount::gates, which adds to d_gate as well. Sequences in which no token counts are left out of the mean over
/// sequences. 0 when no token counts, or nothing was chosen. A token adds nothing to the sums of experts that it
/// excludes, and an expert that all tokens exclude is none of the E.
///
/// | published loss                                 | norm            | count        | scope    | at uniform |
/// | ---------------------------------------------- | --------------- | ------------ | -------- | ---------- |
/// | MoLA, arXiv:2402.08562                         | one_at_uniform  | all_choices  | global   | 1          |
/// | DeepSpeed top-k: k                             | one_at_uniform  | first_choice | global   | 1          |
/// | DeepSeekMoE, arXiv:2401.06066                  | one_at_uniform  | all_choices  | either   | 1          |
/// | GShard, arXiv:2006.16668; DeepSpeed top1, top2 | one_at_uniform  | first_choice | global   | 1          |
/// | MixLoRA-switch                                 | one_at_uniform  | first_choice | global   | 1          |
/// | Uni-MoE, arXiv:2405.11273                      | one_at_uniform  | first_choice | global   | 1          |
/// | Switch, arXiv:2101.03961, as in transformers   | one_at_uniform  | first_choice | sequence | 1          |
/// | Mixtral, as in transformers; MoLE top-k        | k_at_uniform    | all_choices  | global   | k          |
/// | MoLE threshold; Dynamic MoE, arXiv:2403.07652  | k_at_uniform    | all_choices  | global   | mean k     |
/// | AdaMoLE, arXiv:2405.00361: above_threshold     | k_at_uniform    | all_choices  | global   | -          |
/// | LD-MoLE, arXiv:2509.25684: gates               | one_at_uniform  | all_choices  | global   | 1          |
/// | DynMoLE                                        | k_at_uniform    | gates        | global   | mean of g  |
/// | LLaVA-MoLE, arXiv:2401.16160                   | without_experts | first_choice | sequence | 1/E        |
///
/// specialization_balance() takes k_without_experts.
/// Transformers' Switch counts a token that its capacity dropped as a choice of expert 0: first_choice_if_served;
/// first_choice counts it for the expert that it chose. Mixtral pools the layers of a model; so does the overload for
/// several traces, which need equal E. Throws Error(shape) when the traces differ in E, or lack the column of a
/// threshold that is asked for; Error(option) for a coefficient beyond float (in_float_range), and for k < 1.
/// O(N E) for up to 64 experts, one pass over the tokens for each 64 beyond; O(N E k) for k first choices; no
/// allocation.
template <class T>
double load_balance(std::span<Trace<T>* const> traces, const LoadBalanceOptions& options = {}) {
  detail::require_coefficient("load_balance", options.coefficient);
  require(options.k >= 1, ErrorCode::option, "load_balance: expected k from 1 up, found ", options.k);
  for (const Trace<T>* trace : traces)
    require_equal(ErrorCode::shape, "load_balance: experts of the traces", traces.front()->scored_experts(),
                  trace->scored_experts());
  if (options.score == BalanceScore::above_threshold)
    for (const Trace<T>* trace : traces) detail::require_column_behind_experts("load_balance", *trace);
  if (traces.empty()) return 0;
  if (options.scope == BalanceScope::global)
    return detail::BalanceLoss<T>({traces, -1}, options, options.coefficient)();

  const auto for_each_sequence = [&](auto&& f) {
    for (std::size_t i = 0; i < traces.size(); ++i)
      for (Index s = 0; s < traces[i]->pass.sequences(); ++s) {
        const detail::BalanceGroup<T> group{traces.subspan(i, 1), s};
        if (group.tokens() > 0) f(group);
      }
  };
  double sequences = 0, value = 0;
  for_each_sequence([&](const auto&) { ++sequences; });
  for_each_sequence(
      [&](const auto& group) { value += detail::BalanceLoss<T>(group, options, options.coefficient / sequences)(); });
  return value;
}

/// The same for one trace.
template <class T>
double load_balance(Trace<T>& trace, const LoadBalanceOptions& options = {}) {
  Trace<T>* const one = &trace;
  return load_balance(std::span<Trace<T>* const>(&one, 1), options);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
