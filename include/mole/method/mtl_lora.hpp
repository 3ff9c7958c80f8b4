// SPDX-License-Identifier: MIT
// mtl_lora(): MTL-LoRA, one adapter for many tasks, which share its A and its B.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/task_factors.hpp"
#include "mole/layer/expert_linear.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Yang et al. 2024 (MTL-LoRA), arXiv:2410.09437; released as pUmpKin-Co/MTL-LoRA, whose default temperature of 0
/// divides by zero.
struct MtlLoraOptions {
  Index tasks = 2;
  Index rank = 8;
  Index up_matrices = 3;
  double alpha = 16;
  double temperature = 0.1;
  bool diagonal = false;  ///< the matrix of a task is a diagonal
  double dropout = 0;     ///< on the adapter's input
};

/// y = W x + b + (alpha / r) (sum_i w_ki B_i) Lambda_k A x for a token of task k. There is no router: tasks are the
/// experts of a routing from the caller,
///     layer.apply(x, Routing<float>::from_labels(task_of_token, tasks), y, work);
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto mtl_lora(const MtlLoraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<TaskFactors<T>> experts({.in = base.in(),
                                   .out = base.out(),
                                   .experts = options.tasks,
                                   .rank = options.rank,
                                   .up_matrices = options.up_matrices,
                                   .temperature = options.temperature,
                                   .diagonal = options.diagonal,
                                   .alpha = options.alpha,
                                   .dropout = {.rate = options.dropout, .stream = 1}},
                                  generator);
  return ExpertLinear{std::move(experts), std::move(base), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
