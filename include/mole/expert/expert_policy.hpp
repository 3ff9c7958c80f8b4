// SPDX-License-Identifier: MIT
// ExpertPolicy: the contract of experts: what do they add?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/routing.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with a floating-point `Scalar`, `experts()`, `in()`, `out()` and
///     forward(x, latent, routing, y, call)   y += what the routed experts add
///   x [N x I], latent [N x ranks] of the same x, or empty, y [N x O]
template <class E, class Execution = ExecutionArchetype>
concept ExpertPolicy = std::floating_point<typename E::Scalar> && std::copy_constructible<E> &&
    requires(const E& experts, View<const typename E::Scalar> in, const Routing<typename E::Scalar>& routing,
             View<typename E::Scalar> y) {
  { experts.experts() } -> std::convertible_to<Index>;
  { experts.in() } -> std::convertible_to<Index>;
  { experts.out() } -> std::convertible_to<Index>;
  experts.forward(in, in, routing, y, call_of<E, Execution>());
};

/// Experts that learn:   backward(x, routing, d_y, d_gate, d_x, gradients, call)
/// after forward on the same scratch. d_gate [pairs] and d_x [N x I] are accumulated, and empty when they are not
/// wanted.
template <class E, class Execution = ExecutionArchetype>
concept TrainableExpertPolicy = ExpertPolicy<E, Execution> &&
    requires(const E& experts, View<const typename E::Scalar> in, const Routing<typename E::Scalar>& routing,
             std::span<typename E::Scalar> d_gate, View<typename E::Scalar> d_x, ParametersOf<E>& gradients) {
  experts.backward(in, routing, in, d_gate, d_x, gradients, call_of<E, Execution>());
};

/// Experts that only add rows to y and d_x, which an execution may add while a tile of a linear base's result is in
/// cache:
///     down(x, latent, routing, call)   all of forward but y: its terms, kept in the scratch
///     d_x_terms(routing, call)         after a backward with an empty d_x: the terms of d_x
///     fuses_d_x(pass)                  false if d_x has to pass a dropout mask: then backward needs d_x
template <class E, class Execution = ExecutionArchetype>
concept RankedExpertPolicy = TrainableExpertPolicy<E, Execution> &&
    requires(const E& experts, View<const typename E::Scalar> in, const Routing<typename E::Scalar>& routing,
             const Pass& pass) {
  { experts.down(in, in, routing, call_of<E, Execution>()) } -> std::same_as<RankTerms<typename E::Scalar>>;
  { experts.d_x_terms(routing, call_of<E, Execution>()) } -> std::same_as<RankTerms<typename E::Scalar>>;
  { experts.fuses_d_x(pass) } -> std::convertible_to<bool>;
};

/// Experts whose latent z = A x a router can read:
///     project(x, call)                                 z [N x ranks], kept in the scratch
///     d_latent(tokens, call)                           where the router adds d_z, zeroed
///     project_backward(x, d_z, d_x, gradients, call)   after the gating's backward
template <class E, class Execution = ExecutionArchetype>
concept LatentExpertPolicy = TrainableExpertPolicy<E, Execution> &&
    requires(const E& experts, View<const typename E::Scalar> in, View<typename E::Scalar> d_x,
             ParametersOf<E>& gradients) {
  { experts.project(in, call_of<E, Execution>()) } -> std::same_as<View<const typename E::Scalar>>;
  { experts.d_latent(Index(1), call_of<E, Execution>()) } -> std::same_as<View<typename E::Scalar>>;
  experts.project_backward(in, in, d_x, gradients, call_of<E, Execution>());
};

/// Experts that are linear maps:   add_delta(expert, weight, w)   w [O x I] += weight * the expert's matrix
template <class E>
concept MergeableExpertPolicy = requires(const E& experts, View<typename E::Scalar> w) {
  experts.add_delta(Index(0), 1.0, w);
};

/// Is a token's output the sum of what each of its pairs gives alone, beside what is there without any? Experts whose
/// pairs act on each other say so by   static constexpr bool pairs_interact = true
template <class E>
constexpr bool pairs_add_up = !requires {
  requires E::pairs_interact;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
