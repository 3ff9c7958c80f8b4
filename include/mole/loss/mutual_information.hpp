// SPDX-License-Identifier: MIT
// mutual_information(): ties experts to tasks, and leaves each task its own few.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/core/matrix.hpp"

#include <cmath>
#include <memory_resource>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// -coefficient * I(task; expert),   I = sum_te P_te log(P_te / (P_t P_e))
///
///   labels [N], the task t of each token, from 0 to tasks - 1
///   P_te = (sum over the tokens of task t of scores_e) / T,   P_t = tokens of t / T,   P_e = sum_t P_te
///
/// Falls as tasks choose different experts and each chooses few, while all experts together stay in use. Adds its
/// gradient to d_scores:   -coefficient log(P_te / (P_t P_e)) / T. Where P_te is 0 that is a step of infinity, and none
/// is taken. Masked tokens do not count, excluded experts have a score of 0; 0 when no token counts.
/// Throws Error(shape) for other than one label per token, Error(option) for labels out of range or a coefficient
/// beyond float (in_float_range).  O(N E); takes tasks * E + E doubles from `memory`.
/// Source: Chen et al. 2022 (Mod-Squad), arXiv:2212.08066.
template <class T>
double mutual_information(Trace<T>& trace, std::span<const int> labels, Index tasks, double coefficient = 1,
                          std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
  detail::require_coefficient("mutual_information", coefficient);
  require(tasks >= 1, ErrorCode::option, "mutual_information: expected at least 1 task, found ", tasks);
  require_equal(ErrorCode::shape, "mutual_information: labels", trace.tokens(), Index(labels.size()));
  const Index experts = trace.scored_experts();
  Matrix<double> joint(tasks + 1, experts, memory);  // the last row is P_e
  std::pmr::vector<double> of_task(std::size_t(tasks), 0.0, memory);
  const double tokens = double(trace.counted_tokens());
  for (Index n = 0; n < trace.tokens(); ++n) {
    if (!trace.pass.counts(n)) continue;
    const int t = labels[std::size_t(n)];
    require(t >= 0 && t < tasks, ErrorCode::option, "mutual_information: expected labels below ", tasks, ", found ", t);
    of_task[std::size_t(t)] += 1 / tokens;
    for (Index e = 0; e < experts; ++e)
      if (!trace.excluded(n, e))
        for (const Index row : {Index(t), tasks}) joint(row, e) += double(trace.scores()(n, e)) / tokens;
  }
  double information = 0;
  for (Index t = 0; t < tasks; ++t)
    for (Index e = 0; e < experts; ++e) {
      const double p = joint(t, e);
      joint(t, e) = p > 0 ? std::log(p / (of_task[std::size_t(t)] * joint(tasks, e))) : 0;
      information += p * joint(t, e);
    }
  for (Index n = 0; n < trace.tokens(); ++n)
    if (trace.pass.counts(n))
      for (Index e = 0; e < experts; ++e)
        if (!trace.excluded(n, e)) trace.d_scores()(n, e) -= T(coefficient * joint(labels[std::size_t(n)], e) / tokens);
  return -coefficient * information;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
