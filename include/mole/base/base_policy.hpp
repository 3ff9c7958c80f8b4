// SPDX-License-Identifier: MIT
// BasePolicy: the contract of bases: what does the layer compute without its experts?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with a floating-point `Scalar`, `in()`, `out()` and
///     forward(x, y, call)   y = base(x)
///   x [N x I], y [N x O], overwritten
template <class B, class Execution = ExecutionArchetype>
concept BasePolicy = std::floating_point<typename B::Scalar> && std::copy_constructible<B> &&
    requires(const B& base, View<const typename B::Scalar> x, View<typename B::Scalar> y) {
  { base.in() } -> std::convertible_to<Index>;
  { base.out() } -> std::convertible_to<Index>;
  base.forward(x, y, call_of<B, Execution>());
};

/// A base that passes gradients to its input:   backward(x, d_y, d_x, gradients, call)
/// d_x is accumulated, and empty when it is not wanted; `gradients` are empty for a frozen base, the usual case.
template <class B, class Execution = ExecutionArchetype>
concept TrainableBasePolicy = BasePolicy<B, Execution> &&
    requires(const B& base, View<const typename B::Scalar> x, View<typename B::Scalar> d_x,
             ParametersOf<B>& gradients) {
  base.backward(x, x, d_x, gradients, call_of<B, Execution>());
};

/// A base that is a linear map:   weights()   from which an execution may compute forward and d_x
template <class B>
concept LinearBasePolicy = requires(const B& base) {
  { base.weights() } -> std::same_as<LinearWeights<typename B::Scalar>>;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
