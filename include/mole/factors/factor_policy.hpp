// SPDX-License-Identifier: MIT
// FactorPolicy: the contract of factors: where do A and B come from?
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
/// Where there is a rank gate [1 x rows of b], row i of B counts rank_gate_i times: B is diag(rank_gate) b, which
/// nobody has to make.
template <class T>
struct FactorViews {
  View<T> a, b;
  View<T> rank_gate = {};
};

/// Satisfied by a copyable type with `Scalar`, `Options` (which hold `alpha`, `scaling` and `dropout` for the experts)
/// and
///     in(), out(), blocks()
///     factors(scratch)                     A and B, made in `scratch` where they are not simply there
///     gradient_views(gradients, scratch)   where to add d_a, d_b and d_rank_gate; empty = frozen. Fewer rows than A
///     and
///                                          B have are those of their last rows: the rows before are frozen
///     contract(gradients, scratch)         from d_a and d_b to the gradients of its own parameters
///     project(x, z, call)                  z = x A^T    x [N x I], z [N x ranks]
///     project_backward(d_z, d_x, call)     d_x += d_z A; passes over a d_z of zeros at no cost where A is streamed
///     add_row(rank, factor, to, scratch)   to += factor * row `rank` of A; offline
/// Factors whose A is no matrix in memory say `static constexpr bool streams = true`: factors() and gradient_views()
/// give an empty view of it, and it is used through the last three functions alone.
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

/// Is A of these factors no matrix in memory?
template <class F>
constexpr bool streams_a = requires {
  requires F::streams;
};

}  // namespace mole
