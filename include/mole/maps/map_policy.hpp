// SPDX-License-Identifier: MIT
// MapPolicy: the contract of maps: what does an expert make of a row of x?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with `Scalar`, `Options` (which hold `alpha`, `scaling` and `dropout` for the experts),
///     in(), out(), experts()
///     map(expert, x, y, call)          y = what the expert makes of the rows of x   x [N x I], y [N x O]
///     scale(alpha, scaling, expert)    the factor of what an expert adds
/// Rows of x and y follow each other without gaps. Optional, as in the contract of factors: prepare(call), the first
/// call of each forward.
template <class M, class Execution = ExecutionArchetype>
concept MapPolicy = std::copyable<M> && std::floating_point<typename M::Scalar> &&
    requires(const M& maps, View<const typename M::Scalar> x, View<typename M::Scalar> y,
             const typename M::Options& options) {
  { maps.in() } -> std::convertible_to<Index>;
  { maps.out() } -> std::convertible_to<Index>;
  { maps.experts() } -> std::convertible_to<Index>;
  maps.map(Index(0), x, y, call_of<M, Execution>());
  { maps.scale(1.0, Scaling::fixed, Index(0)) } -> std::convertible_to<double>;
  options.alpha, options.scaling, options.dropout;
};

/// Maps that learn:
///     map_backward(expert, x, d_y, d_x, gradients, call)   d_x += and gradients +=; an empty d_x is not wanted
/// for the same rows as map(), in any order of experts, after prepare(); what it needs of map() it computes again.
/// Optional: begin_backward(gradients, call) before the first and contract(gradients, call) after the last of a call.
template <class M, class Execution = ExecutionArchetype>
concept TrainableMapPolicy = MapPolicy<M, Execution> &&
    requires(const M& maps, View<const typename M::Scalar> x, View<typename M::Scalar> d_x,
             ParametersOf<M>& gradients) {
  maps.map_backward(Index(0), x, x, d_x, gradients, call_of<M, Execution>());
};

/// Maps that are linear:   add_delta(expert, factor, w, call)   w [O x I] += factor * the expert's matrix, after
/// prepare(); offline: the call's execution has only parallel_for()
template <class M, class Execution = ExecutionArchetype>
concept LinearMapPolicy = MapPolicy<M, Execution> && requires(const M& maps, View<typename M::Scalar> w) {
  maps.add_delta(Index(0), typename M::Scalar(1), w, call_of<M, Execution>());
};

/// Maps whose weighted sum over the experts of a token may be computed at once:
///     sums_per_token()                       now, or one expert after the other
///     add_sum(count, expert, weight, x, y)   y += the sum over j < count of weight(j) times what expert(j) makes of x
/// for x and y of one token.
template <class M>
concept SummingMapPolicy = MapPolicy<M> &&
    requires(const M& maps, std::span<const typename M::Scalar> x, std::span<typename M::Scalar> y,
             Index (*expert)(Index), typename M::Scalar (*weight)(Index)) {
  { maps.sums_per_token() } -> std::convertible_to<bool>;
  maps.add_sum(Index(1), expert, weight, x, y);
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
