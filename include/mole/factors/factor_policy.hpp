// SPDX-License-Identifier: MIT
// FactorPolicy: the contract of factors: where do A and B come from?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One pair of factors.   a [ranks x I], b [ranks x O], row i of each together one rank-1 expert
///
/// With a rank gate [1 x rows of b], row i of B is multiplied by rank_gate_i: B is diag(rank_gate) b, which is never
/// formed.
template <class T>
struct FactorViews {
  View<T> a, b;
  View<T> rank_gate = {};
};

/// Satisfied by a copyable type with `Scalar`, `Options` (which hold `alpha`, `scaling` and `dropout` for the experts)
/// and
///     in(), out(), blocks()
///     factors(scratch)                     A and B, in its parameters or in `scratch`
///     gradient_views(gradients, scratch)   where to add d_a, d_b and d_rank_gate; empty = frozen. If they have fewer
///                                          rows than A and B, they are those of the last rows: the others are frozen
/// Two more kinds of factors exist, ComputedFactorPolicy and StreamedFactorPolicy. Optional:
///     scale(alpha, scaling, expert)        if the scale does not follow from the number of an expert's ranks
template <class F>
concept FactorPolicy = std::copyable<F> && std::floating_point<typename F::Scalar> &&
    requires(const F& factors, ScratchOf<F>& scratch, ParametersOf<F>& gradients, const typename F::Options& options) {
  { factors.in() } -> std::convertible_to<Index>;
  { factors.out() } -> std::convertible_to<Index>;
  { factors.blocks() } -> std::convertible_to<const RankBlocks&>;
  { factors.factors(scratch) } -> std::same_as<FactorViews<const typename F::Scalar>>;
  { factors.gradient_views(gradients, scratch) } -> std::same_as<FactorViews<typename F::Scalar>>;
  options.alpha, options.scaling, options.dropout;
};

/// Factors that compute A or B, which are in their scratch then, from other parameters:
///     prepare(call)               A and B; the first call of each forward
///     contract(gradients, call)   adds to the gradients of its parameters, from the d_a and d_b that gradient_views()
///                                 had set to 0 in the scratch; the last call of each backward
/// Both use no more of an execution than parallel_for().
template <class F, class Execution = ExecutionArchetype>
concept ComputedFactorPolicy = FactorPolicy<F> && requires(const F& factors, ParametersOf<F>& gradients) {
  factors.prepare(call_of<F, Execution>());
  factors.contract(gradients, call_of<F, Execution>());
};

/// Factors whose A is no matrix in memory: factors() and gradient_views() return an empty view of A, which is used
/// through these alone:
///     project(x, z, call)                  z = x A^T    x [N x I], z [N x ranks]
///     project_backward(d_z, d_x, call)     d_x += d_z A; skips zeros of d_z at no cost
///     add_row(rank, factor, to, scratch)   to += factor * row `rank` of A; offline
template <class F, class Execution = ExecutionArchetype>
concept StreamedFactorPolicy = FactorPolicy<F> &&
    requires(const F& factors, ScratchOf<F>& scratch, View<const typename F::Scalar> in, View<typename F::Scalar> out,
             std::span<typename F::Scalar> row) {
  factors.project(in, out, call_of<F, Execution>());
  factors.project_backward(in, out, call_of<F, Execution>());
  factors.add_row(Index(0), typename F::Scalar(1), row, scratch);
};

namespace detail {
// What stands for the optional functions of factors without them.

/// Computes A and B, unless they are stored.
template <FactorPolicy Factors>
void prepare(const Factors& factors, auto call) {
  if constexpr (ComputedFactorPolicy<Factors>) factors.prepare(call);
}

/// From d_a and d_b to gradients, unless they are gradients themselves.
template <FactorPolicy Factors>
void contract(const Factors& factors, ParametersOf<Factors>& gradients, auto call) {
  if constexpr (ComputedFactorPolicy<Factors>) factors.contract(gradients, call);
}

/// z = x A^T, after prepare().   x [N x I], z [N x ranks]
template <FactorPolicy Factors, class T = typename Factors::Scalar>
void project(const Factors& factors, View<const T> x, View<T> z, auto call) {
  if constexpr (StreamedFactorPolicy<Factors>)
    factors.project(x, z, call);
  else
    call.execution.product_nt(x, factors.factors(call.scratch).a, z);
}

/// d_x += d_z A
template <FactorPolicy Factors, class T = typename Factors::Scalar>
void project_backward(const Factors& factors, View<const T> d_z, View<T> d_x, auto call) {
  if constexpr (StreamedFactorPolicy<Factors>)
    factors.project_backward(d_z, d_x, call);
  else
    call.execution.product_nn(d_z, factors.factors(call.scratch).a, d_x);
}

/// to += factor * row `rank` of A, after prepare(); offline
template <FactorPolicy Factors, class T = typename Factors::Scalar>
void add_row(const Factors& factors, Index rank, T factor, std::span<T> to, ScratchOf<Factors>& scratch) {
  if constexpr (StreamedFactorPolicy<Factors>) {
    factors.add_row(rank, factor, to, scratch);
  } else {
    const std::span<const T> row = factors.factors(scratch).a.row(rank);
    for (std::size_t i = 0; i < row.size(); ++i) to[i] += factor * row[i];
  }
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
