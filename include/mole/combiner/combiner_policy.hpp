// SPDX-License-Identifier: MIT
// CombinerPolicy: the contract of combiners: what do the outputs of several experts make together?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with a floating-point `Scalar`, `experts()`, `features()`, `out()` and
///     forward(x, y, call)   y = what it makes of the experts' outputs
///   x [N x E F], the F features of each expert side by side, y [N x O], overwritten
/// Pass::allowed rules out an expert for a token: what it has there, NaN even, reaches nothing. The library's own check
/// their arguments, as no layer does it for them: Error(shape), Error(capacity), Error(order).
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
/// Nothing stands before a combiner that would check its calls: throws Error(shape) for tensors and flags that do not
/// fit, Error(capacity) for a scratch of fewer tokens.
template <class C>
void check_combiner_call(std::string_view who, const C& combiner, View<const typename C::Scalar> x,
                         View<const typename C::Scalar> y, const Pass& pass, Index room) {
  const Index columns = combiner.experts() * combiner.features();
  require(x.cols() == columns, ErrorCode::shape, who, ": expected ", columns, " columns of x, found ", x.cols());
  require(y.rows() == x.rows() && y.cols() == combiner.out(), ErrorCode::shape, who, ": expected a result of [",
          x.rows(), " x ", combiner.out(), "], found [", y.rows(), " x ", y.cols(), "]");
  require(x.rows() <= room, ErrorCode::capacity, who, ": scratch made for ", room, " tokens, x has ", x.rows());
  require(pass.allowed.empty() || Index(pass.allowed.size()) == x.rows() * combiner.experts(), ErrorCode::shape, who,
          ": expected ", x.rows() * combiner.experts(), " flags of allowed experts, found ", pass.allowed.size());
}
/// ... and those of a backward, which follows a forward of as many tokens, once: Error(order).
template <class C>
void check_combiner_backward(std::string_view who, const C& combiner, View<const typename C::Scalar> x,
                             View<const typename C::Scalar> d_y, View<const typename C::Scalar> d_x, const Pass& pass,
                             Index room, Index of_forward) {
  check_combiner_call(who, combiner, x, d_y, pass, room);
  require(of_forward == x.rows(), ErrorCode::order, who, ": expected a backward once after a forward of its ", x.rows(),
          " tokens, found ", of_forward < 0 ? "no forward" : "a forward of another number");
  require(!d_x || (d_x.rows() == x.rows() && d_x.cols() == x.cols()), ErrorCode::shape, who, ": expected a d_x of [",
          x.rows(), " x ", x.cols(), "], found [", d_x.rows(), " x ", d_x.cols(), "]");
}

/// May a combiner see this expert of this token?
inline bool is_allowed(const Pass& pass, Index token, Index expert, Index experts) {
  return pass.allowed.empty() || pass.allowed[std::size_t(token * experts + expert)] != 0;
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
