// SPDX-License-Identifier: MIT
// JitteredRouter: a router that reads tokens multiplied by random factors near 1.
#pragma once

#include "mole/core/jitter.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = those of the router for u x,   u ~ U(1 - amount, 1 + amount) for each element, in training.
///
///   x [N x I], logits as those of the router
///
/// The experts and the base see x itself; Jitter says how to let them see the factors, too. Parameters are those of the
/// router, under the same names. Throws Error(option) for an amount out of [0, 1).  Scratch: 2 [tokens x I].
/// Source: Fedus et al. 2021 (Switch), arXiv:2101.03961: amount 0.01.
template <class Router>
class JitteredRouter {
  static_assert(RouterPolicy<Router>, "mole: Router must model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(reads_of<Router> == Reads::tokens, "mole: JitteredRouter takes a Router of tokens");

 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  using Parameters = ParametersOf<Router>;
  static constexpr bool borrows = borrows_parameters<Router>;

  struct Scratch {
    View<T> seen, d_seen;  // [tokens x I]
    ScratchOf<Router> router;
  };

  JitteredRouter(Router router, Jitter jitter) : router_(std::move(router)), jitter_(jitter) {
    jitter_.check("JitteredRouter");
  }

  void check_sizes() const { detail::check_sizes(router_); }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(router_, gradients); }

  Index outputs() const { return router_.outputs(); }
  Index in() const { return router_.in(); }
  const Jitter& jitter() const { return jitter_; }
  Router& router() { return router_; }
  const Router& router() const { return router_; }
  decltype(auto) parameters() { return parameters_of(router_); }
  decltype(auto) parameters() const { return parameters_of(router_); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, in()), arena.matrix<T>(size.tokens, in()), scratch_for(router_, size, arena)};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    forward_router(router_, seen(x, call), logits, call.with(call.scratch.router));
  }

  /// The router's gradients for u x;   d_x += u d(u x)
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<Router> {
    const auto of_router = call.with(call.scratch.router);
    if (!jitter_.acts(call.pass)) return router_.backward(x, d_logits, d_x, gradients, of_router);
    const View<const T> seen = call.scratch.seen.top(x.rows());
    if (!d_x) return router_.backward(seen, d_logits, View<T>(), gradients, of_router);
    const View<T> d_seen = call.scratch.d_seen.top(x.rows());
    fill(d_seen, T(0));
    router_.backward(seen, d_logits, d_seen, gradients, of_router);
    jitter_.backward(View<const T>(d_seen), d_x, call.pass);
  }

 private:
  View<const T> seen(View<const T> x, auto call) const {
    if (!jitter_.acts(call.pass)) return x;
    const View<T> jittered = call.scratch.seen.top(x.rows());
    jitter_.forward(x, jittered, call.pass);
    return jittered;
  }

  Router router_;
  Jitter jitter_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
