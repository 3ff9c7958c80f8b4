// SPDX-License-Identifier: MIT
// JoinedRouter: two routers whose logits are concatenated.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/pair_parameters.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = those of the first router, then those of the second.
///
///   in [N x features] of both, logits [N x (E + extra)]
///
/// For gates with an extra column: a threshold (AdaMoLE) or a sparsity (LD-MoLE) from a router of its own. Parameters
/// are named "first..." and "second...". Throws Error(shape) when the two routers have different numbers of inputs.
template <class First, class Second>
class JoinedRouter {
  static_assert(RouterPolicy<First> && RouterPolicy<Second>,
                "mole: First and Second must model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(reads_of<First> == reads_of<Second>, "mole: First and Second read different features");

 public:
  using Scalar = typename First::Scalar;
  using T = Scalar;
  static constexpr Reads reads = reads_of<First>;
  static constexpr bool borrows = borrows_parameters<First> || borrows_parameters<Second>;

  using Parameters = PairParameters<First, Second>;

  struct Scratch {
    ScratchOf<First> first;
    ScratchOf<Second> second;
  };

  JoinedRouter(First first, Second second) : first_(std::move(first)), second_(std::move(second)) { check_sizes(); }

  void check_sizes() const {
    detail::check_sizes(first_);
    detail::check_sizes(second_);
    if constexpr (requires { first_.in(), second_.in(); })
      require_equal(ErrorCode::shape, "JoinedRouter: inputs of the second router", Index(first_.in()),
                    Index(second_.in()));
  }
  void check_gradients(const Parameters& gradients) const {
    detail::check_gradients(first_, gradients.first);
    detail::check_gradients(second_, gradients.second);
  }

  Index outputs() const { return first_.outputs() + second_.outputs(); }
  Index in() const requires requires(const First& router) { router.in(); }
  { return first_.in(); }

  First& first() { return first_; }
  Second& second() { return second_; }
  const First& first() const { return first_; }
  const Second& second() const { return second_; }
  auto parameters() { return detail::pair_in_place(first_, second_); }
  auto parameters() const { return detail::pair_in_place(first_, second_); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("first", first_, f);
    for_each_state_within("second", second_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {scratch_for(first_, size, arena), scratch_for(second_, size, arena)};
  }

  void forward(View<const T> in, View<T> logits, auto call) const {
    forward_router(first_, in, columns_of_first(logits), call.with(call.scratch.first));
    forward_router(second_, in, columns_of_second(logits), call.with(call.scratch.second));
  }

  void backward(View<const T> in, View<const T> d_logits, View<T> d_in, Parameters& gradients, auto call) const {
    first_.backward(in, columns_of_first(d_logits), d_in, gradients.first, call.with(call.scratch.first));
    second_.backward(in, columns_of_second(d_logits), d_in, gradients.second, call.with(call.scratch.second));
  }

 private:
  template <class U>
  View<U> columns_of_first(View<U> all) const {
    return all.middle_cols(0, Index(first_.outputs()));
  }
  template <class U>
  View<U> columns_of_second(View<U> all) const {
    return all.middle_cols(Index(first_.outputs()), Index(second_.outputs()));
  }

  First first_;
  Second second_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
