// SPDX-License-Identifier: MIT
// CombinerPolicy: the contract of combiners: what do the outputs of several experts make together?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with a floating-point `Scalar`, `experts()`, `features()`, `out()` and
///     forward(x, y, call)   y = what it makes of the experts' outputs
///   x [N x E F], the F features of each expert side by side, y [N x O], overwritten
/// Pass::allowed rules out an expert for a token: what it has there, NaN even, reaches nothing.
template <class C, class Execution = ExecutionArchetype>
concept CombinerPolicy = std::floating_point<typename C::Scalar> && std::copy_constructible<C> &&
    requires(const C& combiner, View<const typename C::Scalar> x, View<typename C::Scalar> y) {
  { combiner.experts() } -> std::convertible_to<Index>;
  { combiner.features() } -> std::convertible_to<Index>;
  { combiner.out() } -> std::convertible_to<Index>;
  combiner.forward(x, y, call_of<C, Execution>());
};

/// Combiners that learn:   backward(x, d_y, d_x, gradients, call)   after forward on the same scratch
/// d_x is accumulated, and empty where the experts are frozen.
template <class C, class Execution = ExecutionArchetype>
concept TrainableCombinerPolicy = CombinerPolicy<C, Execution> &&
    requires(const C& combiner, View<const typename C::Scalar> x, View<typename C::Scalar> d_x,
             ParametersOf<C>& gradients) {
  combiner.backward(x, x, d_x, gradients, call_of<C, Execution>());
};

namespace detail {
/// May a combiner see this expert of this token?
inline bool is_allowed(const Pass& pass, Index token, Index expert, Index experts) {
  return pass.allowed.empty() || pass.allowed[std::size_t(token * experts + expert)] != 0;
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
