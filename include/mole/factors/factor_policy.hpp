// SPDX-License-Identifier: MIT
// The contract of factors: where A and B come from.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

namespace mole {

/// One pair of factors.   a [ranks x I], b [ranks x O], row i of each together one rank-1 expert
///
/// Where there is a rank gate [1 x rows of b], row i of B counts rank_gate_i times: B is diag(rank_gate) b, which nobody has to make.
template <class T>
struct FactorViews {
  View<T> a, b;
  View<T> rank_gate = {};
};

/// Satisfied by a copyable type with `Scalar`, `Options` (which hold `alpha`, `scaling` and `dropout` for the experts)
/// and
///     in(), out(), blocks()
///     factors(scratch)                     A and B, made in `scratch` where they are not simply there
///     gradient_views(gradients, scratch)   where to add d_a, d_b and d_rank_gate; empty = frozen. Fewer rows than A and B
///                                          have are those of their last rows: the rows before are frozen
///     contract(gradients, scratch)         from d_a and d_b to the gradients of its own parameters
template <class F>
concept FactorPolicy = std::copyable<F> && std::floating_point<typename F::Scalar> &&
    requires(const F& factors, ScratchOf<F>& scratch, ParametersOf<F>& gradients, const typename F::Options& options) {
  { factors.in() } -> std::convertible_to<Index>;
  { factors.out() } -> std::convertible_to<Index>;
  { factors.blocks() } -> std::convertible_to<const RankBlocks&>;
  { factors.factors(scratch) } -> std::same_as<FactorViews<const typename F::Scalar>>;
  { factors.gradient_views(gradients, scratch) } -> std::same_as<FactorViews<typename F::Scalar>>;
  factors.contract(gradients, scratch);
  options.alpha, options.scaling, options.dropout;
};

/// Factors whose A is no matrix in memory: factors() gives an empty view of it, gradient_views() an empty d_a, and A
/// is used through
///     project(x, z, execution)              z = x A^T    x [N x I], z [N x ranks]
///     project_backward(d_z, d_x, execution) d_x += d_z A
///     add_row(rank, factor, to)             to += factor * row `rank` of A; offline
/// project_backward passes over a d_z of zeros, so that a router that hands none back costs nothing.
template <class F, class Execution = ExecutionArchetype>
concept StreamedFactorPolicy = FactorPolicy<F> &&
    requires(const F& factors, View<const typename F::Scalar> in, View<typename F::Scalar> out,
             std::span<typename F::Scalar> row, const Execution& execution) {
  factors.project(in, out, execution);
  factors.project_backward(in, out, execution);
  factors.add_row(Index(0), typename F::Scalar(1), row);
};

}  // namespace mole
