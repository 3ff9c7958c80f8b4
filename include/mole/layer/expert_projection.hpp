// SPDX-License-Identifier: MIT
// ExpertProjection: one of the maps of a block: what all experts share of it, and what each adds.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/state.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/layer/layer_parameters.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = base(x) + what Experts add, for experts that are made of several such maps (FeedForwardExperts). An aggregate in
/// all but its constructor: who owns it calls the parts, with rows of its own for each.
///
///   Experts and base map I to O
///
/// check_sizes() throws Error(shape) unless they do.
template <class Experts, class Base>
struct ExpertProjection {
  static_assert(BasePolicy<Base>, "mole: Base does not model BasePolicy (mole/base/base_policy.hpp)");
  static_assert(ExpertPolicy<Experts>, "mole: Experts do not model ExpertPolicy (mole/expert/expert_policy.hpp)");

  using Scalar = typename Experts::Scalar;
  using Parameters = ExpertParameters<Experts, Base>;
  static constexpr bool borrows = borrows_parameters<Base> || borrows_parameters<Experts>;

  /// The parameters in place, in both parts; converts to Parameters, to make gradients of the same shapes.
  template <class E, class B>
  struct Parts {
    E experts;
    B base;
    operator Parameters() const { return {experts, base}; }
    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      Parameters::for_each_tensor(f, p...);
    }
  };
  struct Scratch {
    ScratchOf<Experts> experts;
    ScratchOf<Base> base;
  };

  ExpertProjection(Experts experts_, Base base_) : experts(std::move(experts_)), base(std::move(base_)) {}

  void check_sizes() const {
    detail::check_sizes(experts);
    detail::check_sizes(base);
    require_equal(ErrorCode::shape, "ExpertProjection: inputs of the base", Index(experts.in()), Index(base.in()));
    require_equal(ErrorCode::shape, "ExpertProjection: outputs of the base", Index(experts.out()), Index(base.out()));
  }
  void check_gradients(const Parameters& gradients) const {
    detail::check_gradients(experts, gradients.experts);
    detail::check_gradients(base, gradients.base);
  }

  Index in() const { return base.in(); }
  Index out() const { return base.out(); }
  auto parameters() {
    return Parts<decltype(parameters_of(experts)), decltype(parameters_of(base))>{parameters_of(experts),
                                                                                  parameters_of(base)};
  }
  auto parameters() const {
    return Parts<decltype(parameters_of(experts)), decltype(parameters_of(base))>{parameters_of(experts),
                                                                                  parameters_of(base)};
  }
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("experts", experts, f);
    for_each_state_within("base", base, f);
  }

  Experts experts;
  Base base;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
