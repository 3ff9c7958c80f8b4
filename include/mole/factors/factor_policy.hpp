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
///     factors(scratch)                     A and B, computed in `scratch` unless they are stored
///     gradient_views(gradients, scratch)   where to add d_a, d_b and d_rank_gate; empty = frozen. If they have fewer
///                                          rows than A and B, they are those of the last rows: the others are frozen
///     contract(gradients, scratch)         from d_a and d_b to the gradients of its own parameters
///     project(x, z, call)                  z = x A^T    x [N x I], z [N x ranks]
///     project_backward(d_z, d_x, call)     d_x += d_z A; skips zeros of d_z at no cost if A is streamed
///     add_row(rank, factor, to, scratch)   to += factor * row `rank` of A; offline
/// Factors whose A is no matrix in memory declare `static constexpr bool streams = true`: factors() and
/// gradient_views() return an empty view of A, which is used through the last three functions alone.
template <class F, class Execution = ExecutionArchetype>
concept FactorPolicy = std::copyable<F> && std::floating_point<typename F::Scalar> &&
    requires(const F& factors, ScratchOf<F>& scratch, ParametersOf<F>& gradients, const typename F::Options& options,
             View<const typename F::Scalar> in, View<typename F::Scalar> out, std::span<typename F::Scalar> row) {
  { factors.in() } -> std::convertible_to<Index>;
  { factors.out() } -> std::convertible_to<Index>;
  { factors.blocks() } -> std::convertible_to<const RankBlocks&>;
  { factors.factors(scratch) } -> std::same_as<FactorViews<const typename F::Scalar>>;
  { factors.gradient_views(gradients, scratch) } -> std::same_as<FactorViews<typename F::Scalar>>;
  factors.contract(gradients, scratch);
  factors.project(in, out, call_of<F, Execution>());
  factors.project_backward(in, out, call_of<F, Execution>());
  factors.add_row(Index(0), typename F::Scalar(1), row, scratch);
  options.alpha, options.scaling, options.dropout;
};

/// Is A of these factors not a matrix in memory?
template <class F>
constexpr bool streams_a = requires {
  requires F::streams;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
