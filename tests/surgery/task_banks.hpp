// SPDX-License-Identifier: MIT
// TaskSizes: adapters of several tasks, and what they add together.
#pragma once

#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/surgery/weighted_bank.hpp"

namespace mole::test {

inline constexpr Index task_in = 11, task_out = 13;

struct TaskSizes {
  Index ranks = 6;
  double alpha = 12;  ///< over all ranks
  Index nonzeros = 3, in = task_in, out = task_out;
};

/// FlyLoRA's experts with an A and a B of their own for each task.
template <class T>
std::vector<LowRank<SparseProjection<T>>> sparse_tasks(const std::vector<TaskSizes>& sizes) {
  Rng rng(5);
  std::vector<LowRank<SparseProjection<T>>> tasks;
  for (const TaskSizes& s : sizes) {
    tasks.push_back(LowRank<SparseProjection<T>>({.in = s.in,
                                                  .out = s.out,
                                                  .experts = s.ranks,
                                                  .nonzeros = s.nonzeros,
                                                  .alpha = s.alpha / double(s.ranks),
                                                  .scaling = Scaling::fixed},
                                                 rng));
    fill_uniform(tasks.back().parameters().lora_B.view(), 1, rng);
  }
  return tasks;
}

/// Experts of those ranks for each task.
template <class T>
std::vector<LowRank<DenseFactors<T>>> dense_tasks(const std::vector<std::vector<int>>& ranks) {
  Rng rng(6);
  std::vector<LowRank<DenseFactors<T>>> tasks;
  for (const std::vector<int>& of_task : ranks) {
    tasks.push_back(LowRank<DenseFactors<T>>(
        {.in = task_in, .out = task_out, .experts = Index(of_task.size()), .ranks = of_task, .alpha = 3}, rng));
    fill_uniform(tasks.back().parameters().lora_B.view(), 1, rng);
  }
  return tasks;
}

template <class T>
LowRank<DenseFactors<T>> shared_down_task() {
  Rng rng(7);
  return LowRank<DenseFactors<T>>({.in = task_in, .out = task_out, .experts = 2, .rank = 3, .shared_down = true}, rng);
}

/// a(row, i) of experts of any factors.
template <class T>
double a_of(const LowRank<SparseProjection<T>>& experts, Index row, Index i) {
  std::vector<T> a(std::size_t(experts.in()));
  NoScratch none;
  experts.factors().add_row(row, 1, a, none);
  return double(a[std::size_t(i)]);
}
template <class T>
double a_of(const LowRank<DenseFactors<T>>& experts, Index row, Index i) {
  return double(experts.parameters().lora_A(row, i));
}

/// sum_t w_t s_t B_t A_t, plainly.   [O x I]
template <class Experts>
Matrix<double> dense_update(const std::vector<WeightedBank<Experts>>& banks) {
  Matrix<double> update(banks.front().experts->out(), banks.front().experts->in());
  for (const auto& [experts, weight] : banks) {
    const RankBlocks& blocks = experts->blocks();
    for (Index e = 0; e < blocks.experts(); ++e)
      for (Index j = 0; j < blocks.size(e); ++j)
        for (Index i = 0; i < update.cols(); ++i) {
          const double a = weight * double(experts->scale()[std::size_t(e)]) * a_of(*experts, blocks.down(e) + j, i);
          for (Index o = 0; o < update.rows(); ++o)
            update(o, i) += a * double(experts->parameters().lora_B(blocks.up(e) + j, o));
        }
  }
  return update;
}

template <class Experts>
Index sum_of_ranks(const std::vector<WeightedBank<Experts>>& banks) {
  Index ranks = 0;
  for (const auto& bank : banks) ranks += bank.experts->blocks().ranks_up();
  return ranks;
}

/// a_e x_n, where experts of one rank are counted through all tasks.
template <class Experts>
double latent_of(const std::vector<Experts>& tasks, Index expert, View<const typename Experts::Scalar> x, Index n) {
  std::size_t t = 0;
  for (; expert >= tasks[t].experts(); ++t) expert -= tasks[t].experts();
  double z = 0;
  for (Index i = 0; i < x.cols(); ++i) z += a_of(tasks[t], expert, i) * double(x(n, i));
  return z;
}

}  // namespace mole::test
