// SPDX-License-Identifier: MIT
// ChainedRouter: a router that reads what another one makes of its input.
#pragma once

#include "mole/core/pair_parameters.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = second(h),   h = first(in)
///
///   in [N x features]   h [N x H], H the outputs of `first` and the inputs of `second`   logits [N x E]
///
///   S'MoRE    ChainedRouter{DeepRouter{...}, CosineRouter{...}}: cosines of keys with a network of x
///
/// A score of queries and keys behind a network of any kind; `second` reads h as tokens. The parameters are named
/// "first..." and "second...". Throws Error(shape) unless `second` has H inputs.  Scratch: twice H for each token.
/// Source: SMoRE 2025, ZimpleX/SMoRE-LLM, moe_gates.py (SMoREGate).
template <class First, class Second>
class ChainedRouter {
  static_assert(RouterPolicy<First> && RouterPolicy<Second>,
                "mole: First and Second must model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(reads_of<Second> == Reads::tokens,
                "mole: Second reads the experts' latent, which is not First's output");

 public:
  using Scalar = typename First::Scalar;
  using T = Scalar;
  static constexpr Reads reads = reads_of<First>;
  static constexpr bool borrows = borrows_parameters<First> || borrows_parameters<Second>;

  using Parameters = PairParameters<First, Second>;

  struct Scratch {
    View<T> h, d_h;  // [tokens x H]
    ScratchOf<First> first;
    ScratchOf<Second> second;
  };

  ChainedRouter(First first, Second second) : first_(std::move(first)), second_(std::move(second)) { check_sizes(); }

  void check_sizes() const {
    detail::check_sizes(first_);
    detail::check_sizes(second_);
    if constexpr (requires { second_.in(); })
      require_equal(ErrorCode::shape, "ChainedRouter: inputs of the second router", Index(first_.outputs()),
                    Index(second_.in()));
  }
  void check_gradients(const Parameters& gradients) const {
    detail::check_gradients(first_, gradients.first);
    detail::check_gradients(second_, gradients.second);
  }

  Index outputs() const { return second_.outputs(); }
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
    const auto hidden = [&] { return arena.matrix<T>(size.tokens, first_.outputs()); };
    return {hidden(), hidden(), scratch_for(first_, size, arena), scratch_for(second_, size, arena)};
  }

  void forward(View<const T> in, View<T> logits, auto call) const {
    const View<T> h = call.scratch.h.top(in.rows());
    forward_router(first_, in, h, call.with(call.scratch.first));
    forward_router(second_, View<const T>(h), logits, call.with(call.scratch.second));
  }

  /// d_h and the gradients of `second` are those of its backward; then d_in and the gradients of `first`, from d_h.
  void backward(View<const T> in, View<const T> d_logits, View<T> d_in, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<First> && TrainableRouterPolicy<Second> {
    const View<T> d_h = call.scratch.d_h.top(in.rows());
    fill(d_h, T(0));
    second_.backward(View<const T>(call.scratch.h.top(in.rows())), d_logits, d_h, gradients.second,
                     call.with(call.scratch.second));
    first_.backward(in, View<const T>(d_h), d_in, gradients.first, call.with(call.scratch.first));
  }

 private:
  First first_;
  Second second_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
