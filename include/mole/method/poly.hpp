// SPDX-License-Identifier: MIT
// poly(): Poly and MHR, one adapter for many tasks, mixed from an inventory of skills.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/skill_factors.hpp"
#include "mole/layer/expert_linear.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Ponti et al. 2022 (Poly), arXiv:2202.13914; with several splits Caccia et al. 2022 (MHR), arXiv:2211.03831. Released
/// in huggingface/peft, tuners/poly, where the scale is 1 / rank.
struct PolyOptions {
  Index tasks = 2;
  Index skills = 4;
  Index splits = 1;
  Index rank = 8;
  double alpha = 1;
  bool relaxed = true;  ///< weights of skills are noisy in training
  double dropout = 0;   ///< on the adapter's input
};

/// y = W x + b + (alpha / rank) (sum_s w_ks B_s) (sum_s w_ks A_s) x for a token of task k. There is no router: tasks
/// are the experts of a routing from the caller,
///     layer.apply(x, Routing<float>::from_labels(task_of_token, tasks), y, work);
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto poly(const PolyOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<SkillFactors<T>> experts({.in = base.in(),
                                    .out = base.out(),
                                    .experts = options.tasks,
                                    .rank = options.rank,
                                    .skills = options.skills,
                                    .splits = options.splits,
                                    .relaxed = options.relaxed,
                                    .alpha = options.alpha,
                                    .dropout = {.rate = options.dropout, .stream = 1}},
                                   generator);
  return ExpertLinear{std::move(experts), std::move(base), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
