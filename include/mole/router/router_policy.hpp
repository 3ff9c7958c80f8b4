// SPDX-License-Identifier: MIT
// RouterPolicy: the contract of routers: how much does each expert want this token?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/view.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The input of a router: the tokens x, or the experts' latent z = A x.
enum class Reads { tokens, latent };

/// `static constexpr Reads reads` of a router; tokens if it declares none.
template <class Router>
constexpr Reads reads_of = [] {
  if constexpr (requires { Router::reads; }) return Router::reads;
  return Reads::tokens;
}();

namespace detail {
template <class R, class X>
concept ForwardsWithCall = requires(const R& router, View<const typename R::Scalar> in,
                                    View<typename R::Scalar> logits) {
  router.forward(in, logits, call_of<R, X>());
};
template <class R>
concept ForwardsAlone = requires(const R& router, View<const typename R::Scalar> in, View<typename R::Scalar> logits) {
  router.forward(in, logits);
};
}  // namespace detail

/// Satisfied by a type with a floating-point `Scalar`, `outputs()` and one of
///     forward(in, logits, call)      forward(in, logits)
/// both const.   in [N x features], logits [N x outputs], overwritten
template <class R, class Execution = ExecutionArchetype>
concept RouterPolicy = std::floating_point<typename R::Scalar> && std::copy_constructible<R> &&
    requires(const R& router) {
  { router.outputs() } -> std::convertible_to<Index>;
} &&(detail::ForwardsWithCall<R, Execution> || detail::ForwardsAlone<R>);

/// router.forward, with the call if it takes one.
template <class R, class Execution>
void forward_router(const R& router, View<const typename R::Scalar> in, View<typename R::Scalar> logits,
                    Call<Execution, ScratchOf<R>> call) {
  if constexpr (detail::ForwardsWithCall<R, Execution>)
    router.forward(in, logits, call);
  else
    router.forward(in, logits);
}

/// A router that also learns:   backward(in, d_logits, d_in, gradients, call)
/// d_in is accumulated, and empty when it is not wanted; `gradients` may hold frozen (empty) tensors.
template <class R, class Execution = ExecutionArchetype>
concept TrainableRouterPolicy = RouterPolicy<R, Execution> &&
    requires(const R& router, View<const typename R::Scalar> in, View<typename R::Scalar> d_in,
             ParametersOf<R>& gradients) {
  router.backward(in, in, d_in, gradients, call_of<R, Execution>());
};

/// A router of tokens whose share of d_x is d_logits times a weight [outputs x I]:
///     input_weight()    that weight
///     fuses_d_x(pass)   false if d_x has to pass a dropout mask
template <class R>
concept LinearlyReadingRouter = requires(const R& router, const Pass& pass) {
  { router.input_weight() } -> std::same_as<View<const typename R::Scalar>>;
  { router.fuses_d_x(pass) } -> std::convertible_to<bool>;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
