// SPDX-License-Identifier: MIT
// LoraExperts: what initializations change: experts of two matrices, A and B.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/core/svd.hpp"

#include <cmath>
#include <concepts>
#include <span>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by LowRank<DenseFactors<T>>, and by all with its blocks(), scale(), add_delta() and parameters().   lora_A
/// [ranks x I], lora_B [ranks x O], one row of each for each rank: factors whose tensors have these names and other
/// rows, such as TaskFactors, are refused at run time.
template <class E>
concept LoraExperts = std::floating_point<typename E::Scalar> && requires(E& experts) {
  { experts.blocks() } -> std::convertible_to<const RankBlocks&>;
  { experts.scale()[0] } -> std::convertible_to<typename E::Scalar>;
  { experts.parameters().lora_A } -> std::convertible_to<Matrix<typename E::Scalar>&>;
  { experts.parameters().lora_B } -> std::convertible_to<Matrix<typename E::Scalar>&>;
  experts.add_delta(Index(0), 1.0, View<typename E::Scalar>());
};

namespace detail {

/// Throws Error(shape) unless A and B have a row for each rank of the blocks: initializations write them by rank.
template <LoraExperts Experts>
void require_tables(std::string_view who, Experts& experts) {
  const auto require_size = [&](std::string_view what, const Matrix<typename Experts::Scalar>& table, Index rows,
                                Index cols) {
    require(table.rows() == rows && table.cols() == cols, ErrorCode::shape, who, ": expected a ", what, " of [", rows,
            " x ", cols, "], a row for each rank, found [", table.rows(), " x ", table.cols(), "]");
  };
  require_size("lora_A", experts.parameters().lora_A, experts.blocks().ranks_down(), experts.in());
  require_size("lora_B", experts.parameters().lora_B, experts.blocks().ranks_up(), experts.out());
}

/// Throws Error(option) if experts share an A, which would have to start from several at once.
template <LoraExperts Experts>
void require_own_a(std::string_view who, const Experts& experts) {
  require(!experts.blocks().shared_down() || experts.experts() == 1, ErrorCode::option, who,
          ": expected experts with an A of their own, found one A for all");
}

/// Are they one matrix?
template <class T>
bool same_memory(const View<const T>& a, const View<const T>& b) {
  return a.data() == b.data() && (a.stride() == b.stride() || a.rows() <= 1);
}

/// Throws unless expert e exists and has an A of its own, and weight and residual are [O x I]; an empty residual is not
/// wanted. The residual may be the weight itself, but no other memory that overlaps it.
template <LoraExperts Experts>
void require_fits(std::string_view who, Experts& experts, Index expert, View<const typename Experts::Scalar> weight,
                  View<const typename Experts::Scalar> residual) {
  using T = typename Experts::Scalar;
  require_tables(who, experts);
  require(expert >= 0 && expert < experts.experts(), ErrorCode::option, who, ": expected an expert below ",
          experts.experts(), ", found ", expert);
  require_own_a(who, experts);
  const auto require_size = [&](std::string_view what, View<const T> matrix) {
    require(matrix.rows() == experts.out() && matrix.cols() == experts.in(), ErrorCode::shape, who, ": expected a ",
            what, " of [", experts.out(), " x ", experts.in(), "], found [", matrix.rows(), " x ", matrix.cols(), "]");
  };
  require_size("weight", weight);
  if (!residual) return;
  require_size("residual", residual);
  require(same_memory(weight, residual) || !overlap(weight, residual), ErrorCode::shape, who,
          ": expected a residual in the memory of the weight or in its own, found one that overlaps the weight");
}

/// The scale of an expert. Throws Error(option) unless it is above 0 and finite, since directions are divided by it.
template <LoraExperts Experts>
double positive_scale(std::string_view who, const Experts& experts, Index expert) {
  const auto scale = double(experts.scale()[std::size_t(expert)]);
  require(scale > 0 && std::isfinite(scale), ErrorCode::option, who, ": expected a finite scale above 0, found ",
          scale);
  return scale;
}

/// Rank j of an expert:   row of A = factor_a * column `of_a` of a,   row of B = factor_b * column `of_b` of b
template <LoraExperts Experts>
void set_rank(Experts& experts, Index expert, Index j, View<const double> a, Index of_a, double factor_a,
              View<const double> b, Index of_b, double factor_b) {
  using T = typename Experts::Scalar;
  const std::span<T> to_a = experts.parameters().lora_A.view().row(experts.blocks().down(expert) + j);
  const std::span<T> to_b = experts.parameters().lora_B.view().row(experts.blocks().up(expert) + j);
  for (std::size_t i = 0; i < to_a.size(); ++i) to_a[i] = factor_a == 0 ? T(0) : T(factor_a * a(Index(i), of_a));
  for (std::size_t o = 0; o < to_b.size(); ++o) to_b[o] = T(factor_b * b(Index(o), of_b));
}

template <LoraExperts Experts>
void set_rank_to_zero(Experts& experts, Index expert, Index j) {
  using T = typename Experts::Scalar;
  for (T& a : experts.parameters().lora_A.view().row(experts.blocks().down(expert) + j)) a = 0;
  for (T& b : experts.parameters().lora_B.view().row(experts.blocks().up(expert) + j)) b = 0;
}

/// B = U sqrt(sigma / divisor),   A = sqrt(sigma / divisor) V^T, of the directions from `first` on; ranks for which
/// there are none become 0.
template <LoraExperts Experts>
void set_directions(Experts& experts, Index expert, const Svd<double>& of, double divisor, Index first = 0) {
  for (Index j = 0; j < experts.blocks().size(expert); ++j) {
    const Index direction = first + j;
    if (direction >= Index(of.s.size())) {
      set_rank_to_zero(experts, expert, j);
      continue;
    }
    const double root = std::sqrt(of.s[std::size_t(direction)] / divisor);
    set_rank(experts, expert, j, of.v, direction, root, of.u, direction, root);
  }
}

/// residual = weight - share * sum over the experts [first, end) of s B A, with A and B as they are stored; an empty
/// residual is not wanted.
template <LoraExperts Experts>
void write_residual(const Experts& experts, Index first, Index end, double share,
                    View<const typename Experts::Scalar> weight, View<typename Experts::Scalar> residual) {
  if (!residual) return;
  if (residual.data() != weight.data()) copy(weight, residual);
  for (Index e = first; e < end; ++e) experts.add_delta(e, -share, residual);
}

}  // namespace detail
}  // namespace mole

#include "mole/core/macros_on.hpp"
