// SPDX-License-Identifier: MIT
// ExpertsBehindBase: experts that read what a shared base makes of a token, not the token itself.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/row.hpp"
#include "mole/core/state.hpp"
#include "mole/expert/expert_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += what Experts add to u_n, u = base(x), plus u_n itself if `keeps_base`.
///
///   x [N x I], u [N x O], y [N x O]; Experts map O to O
///
/// These are the experts of a layer whose own base is none: NoBase(I, O). With keeps_base, an untrained modulation that
/// starts at 0 leaves base(x) as it is, bit for bit, and tokens that are not routed get base(x); without, they get 0.
/// The base is computed once for all experts of a token, and for all tokens. Its parameters, if it owns some, are
/// trained with the experts', as "base..." and "experts...". Backward uses the u of forward: [tokens x O] of scratch,
/// and as much for d_u. Throws Error(shape) unless Experts have as many inputs as the base has outputs.
template <class Base, class Experts>
class ExpertsBehindBase {
  static_assert(BasePolicy<Base>, "mole: Base does not model BasePolicy (mole/base/base_policy.hpp)");
  static_assert(ExpertPolicy<Experts>, "mole: Experts do not model ExpertPolicy (mole/expert/expert_policy.hpp)");

 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  static constexpr bool borrows = borrows_parameters<Base> || borrows_parameters<Experts>;
  static constexpr bool pairs_interact = !pairs_add_up<Experts>;

  struct Parameters {
    ParametersOf<Base> base;
    ParametersOf<Experts> experts;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<ParametersOf<Base>>("base", f, p.base...);
      for_each_tensor_within<ParametersOf<Experts>>("experts", f, p.experts...);
    }
  };
  /// The parameters in place, in both parts; converts to Parameters, to make gradients of the same shapes. A and B are
  /// references, or themselves the parts of experts that wrap others.
  template <class A, class B>
  struct Parts {
    A base;
    B experts;
    operator Parameters() const { return {base, experts}; }
    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      Parameters::for_each_tensor(f, p...);
    }
  };

  struct Scratch {
    View<T> u, d_u;  // [tokens x O]
    ScratchOf<Base> base;
    ScratchOf<Experts> experts;
  };

  ExpertsBehindBase(Base base, Experts experts, bool keeps_base = false)
      : base_(std::move(base)), experts_(std::move(experts)), keeps_base_(keeps_base) {
    check_sizes();
  }

  void check_sizes() const {
    detail::check_sizes(base_);
    detail::check_sizes(experts_);
    require_equal(ErrorCode::shape, "ExpertsBehindBase: inputs of the experts, outputs of the base", Index(base_.out()),
                  Index(experts_.in()));
    require(!keeps_base_ || experts_.out() == base_.out(), ErrorCode::shape,
            "ExpertsBehindBase: expected experts of as many outputs as the base that is kept, ", base_.out(),
            ", found ", experts_.out());
  }
  void check_gradients(const Parameters& gradients) const {
    detail::check_gradients(base_, gradients.base);
    detail::check_gradients(experts_, gradients.experts);
  }

  Index experts() const { return experts_.experts(); }
  Index in() const { return base_.in(); }
  Index out() const { return experts_.out(); }
  Base& base() { return base_; }
  const Base& base() const { return base_; }
  Experts& behind() { return experts_; }
  const Experts& behind() const { return experts_; }
  auto parameters() {
    return Parts<decltype(parameters_of(base_)), decltype(parameters_of(experts_))>{parameters_of(base_),
                                                                                    parameters_of(experts_)};
  }
  auto parameters() const {
    return Parts<decltype(parameters_of(base_)), decltype(parameters_of(experts_))>{parameters_of(base_),
                                                                                    parameters_of(experts_)};
  }
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("base", base_, f);
    for_each_state_within("experts", experts_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, base_.out()), arena.matrix<T>(size.tokens, base_.out()),
            scratch_for(base_, size, arena), scratch_for(experts_, size, arena)};
  }

  void forward(View<const T> x, View<const T>, const Routing<T>& routing, View<T> y, auto call) const {
    const View<T> u = call.scratch.u.top(x.rows());
    base_.forward(x, u, call.with(call.scratch.base));
    if (keeps_base_) add(u, y, call.execution);
    experts_.forward(u, {}, routing, y, call.with(call.scratch.experts));
  }

  /// With u of forward():   d_u = the experts' share, plus d_y if the base is kept;   the base passes it to d_x
  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients,
                auto call) const requires TrainableBasePolicy<Base> && TrainableExpertPolicy<Experts> {
    const View<T> u = call.scratch.u.top(x.rows());
    const View<T> d_u = d_x || any_wanted(gradients.base) ? call.scratch.d_u.top(x.rows()) : View<T>();
    if (d_u) fill(d_u, T(0));
    if (d_u && keeps_base_) add(d_y, d_u, call.execution);
    experts_.backward(u, routing, d_y, d_gate, d_u, gradients.experts, call.with(call.scratch.experts));
    if (d_u) base_.backward(x, View<const T>(d_u), d_x, gradients.base, call.with(call.scratch.base));
  }

 private:
  static void add(View<const T> from, View<T> to, const auto& execution) {
    execution.parallel_for(to.rows(),
                           [&](Index n) { detail::add_scaled(1, from.row_data(n), to.row_data(n), to.cols()); });
  }

  Base base_;
  Experts experts_;
  bool keeps_base_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
