// SPDX-License-Identifier: MIT
// The layer: a linear map with a routed mixture of experts on top.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/state.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/gating/gating_policy.hpp"
#include "mole/layer/layer_parameters.hpp"
#include "mole/layer/workspace.hpp"
#include "mole/router/external.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace mole {

/// y = base(x) + sum_e s_e g_e(x) B_e (A_e x).
///
///   x, d_x [N x I]   y, d_y [N x O]
///
///   forward  = route + apply                       route: x -> logits -> routing      apply: x, routing -> y
///   backward = apply_backward + route_backward     the halves in opposite order
///
/// The layer is const in forward and backward: what a call needs or leaves is in the caller's workspace, so threads may
/// share a layer if each has its own. Gradients accumulate. d_x is accumulated too, and may be an empty view.
/// Calls throw Error(shape) or Error(capacity) for tensors and batches that do not fit, before anything is written.
/// Allocates in workspace() and gradients() only.
template <class Router, class Gating, class Experts, class Base, class Execution = DefaultExecution>
class MixtureLinear {
 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  using Gradients = LayerParameters<Router, Experts, Base>;
  using Workspace = mole::Workspace<T, Router, Gating, Experts, Base>;

  /// Nobody inside decides: no route() and no forward().
  static constexpr bool external = std::is_same_v<Router, External>;

 private:
  static constexpr bool reads_latent = [] {
    if constexpr (external)
      return false;
    else
      return reads_of<Router> == Reads::latent;
  }();
  static constexpr bool routing_trains = [] {
    if constexpr (external)
      return false;
    else
      return TrainableRouterPolicy<Router, Execution> && TrainableGatingPolicy<Gating, T, Execution>;
  }();

  /// The execution adds the ranks of the experts where the base leaves its result.
  static constexpr bool mixes =
      LinearBasePolicy<Base> && RankedExpertPolicy<Experts, Execution>;

  static_assert(ExpertPolicy<Experts, Execution>,
                "mole: Experts do not model ExpertPolicy (mole/expert/expert_policy.hpp)");
  static_assert(BasePolicy<Base, Execution>, "mole: Base does not model BasePolicy (mole/base/base_policy.hpp)");
  static_assert(ExecutionPolicy<Execution, T>,
                "mole: Execution does not model ExecutionPolicy (mole/execution/execution_policy.hpp)");
  static_assert(external || RouterPolicy<Router, Execution>,
                "mole: Router does not model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(external || GatingPolicy<Gating, T, Execution>,
                "mole: Gating does not model GatingPolicy (mole/gating/gating_policy.hpp)");
  static_assert(std::is_same_v<T, typename Base::Scalar>, "mole: Experts and Base have different Scalars");
  static_assert(
      [] {
        if constexpr (external)
          return true;
        else
          return std::is_same_v<T, typename Router::Scalar>;
      }(),
      "mole: Experts and Router have different Scalars");
  static_assert(!reads_latent || LatentExpertPolicy<Experts, Execution>,
                "mole: the Router reads the experts' latent, but Experts do not model LatentExpertPolicy "
                "(mole/expert/expert_policy.hpp)");

 public:
  /// Throws Error(shape) when the roles do not fit each other, Error(option) when the gating does not fit the experts.
  MixtureLinear(Router router, Gating gating, Experts experts, Base base, Execution execution = {})
      : router_(std::move(router)),
        gating_(std::move(gating)),
        experts_(std::move(experts)),
        base_(std::move(base)),
        execution_(std::move(execution)) {
    require_equal(ErrorCode::shape, "MixtureLinear: inputs of the base", experts_.in(), base_.in());
    require_equal(ErrorCode::shape, "MixtureLinear: outputs of the base", experts_.out(), base_.out());
    if constexpr (!external) {
      gating_.check(experts_.experts());
      require_equal(ErrorCode::shape, "MixtureLinear: outputs of the router", experts_.experts() + gating_.extra(),
                    Index(router_.outputs()));
      if constexpr (requires { router_.in(); } && !reads_latent)
        require_equal(ErrorCode::shape, "MixtureLinear: inputs of the router", experts_.in(), Index(router_.in()));
    }
  }

  Index in() const { return experts_.in(); }
  Index out() const { return experts_.out(); }

  /// Memory for calls of up to `max_tokens` tokens. `max_pairs` bounds the pairs of token and expert where the routing
  /// comes from outside; 0 stands for the most that can occur.
  Workspace workspace(Index max_tokens, Index max_pairs = 0,
                      std::pmr::memory_resource* memory = std::pmr::get_default_resource()) const {
    return Workspace(router_, gating_, experts_, base_, extra(), capacity(max_tokens, max_pairs, memory));
  }

  /// Bytes that such a workspace takes from `memory`, known before it is made: a buffer of so many, aligned for any
  /// type, holds it all.
  std::size_t workspace_bytes(Index max_tokens, Index max_pairs = 0) const {
    return Workspace::bytes_for(router_, gating_, experts_, base_, extra(),
                                capacity(max_tokens, max_pairs, std::pmr::get_default_resource()));
  }

  /// Zero gradients for the parts that learn, empty ones for the others.
  Gradients gradients(TrainableParts trainable = {}) const {
    Gradients gradients;
    if constexpr (!external)
      if (trainable.router) gradients.router = zeros_like(ParametersOf<Router>(parameters_of(router_)));
    if (trainable.experts) gradients.experts = zeros_like(ParametersOf<Experts>(parameters_of(experts_)));
    if (trainable.base) gradients.base = zeros_like(ParametersOf<Base>(parameters_of(base_)));
    return gradients;
  }

  /// Calls f(name, parameter, other...) with one View per tensor that the layer has, for its parameters and each of
  /// `others`: gradients, moments.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    struct Own {
      decltype(parameters_of(std::declval<Router&>())) router;
      decltype(parameters_of(std::declval<Experts&>())) experts;
      decltype(parameters_of(std::declval<Base&>())) base;
    } own{parameters_of(router_), parameters_of(experts_), parameters_of(base_)};
    const auto visit = [&f](std::string_view name, auto& parameter, auto&... rest) {
      if (!parameter.empty()) f(name, parameter.view(), rest.view()...);
    };
    Gradients::for_each_tensor(visit, own, others...);
  }

  /// Calls f(name, span) for whatever the roles remember that is no parameter: "router.bias", "gating.select.bias",
  /// scales, frozen atoms and projections. A checkpoint holds what both walks visit.
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
    for_each_state_within("gating", gating_, f);
    for_each_state_within("experts", experts_, f);
    for_each_state_within("base", base_, f);
  }

  // ---- forward

  /// x -> logits, scores and routing in `work`.
  void route(View<const T> x, Workspace& work, const Pass& pass = {}) const requires(!external) {
    check_tokens(x, work, pass);
    work.start(x.rows(), pass);
    View<const T> features = x;
    if constexpr (reads_latent) {
      auto experts = experts_call(work);
      features = work.latent = experts_.project(x, experts);
    }
    auto call = router_call(work);
    if constexpr (detail::ForwardsWithCall<Router, Execution>)
      router_.forward(features, work.logits(), call);
    else
      router_.forward(features, work.logits());
    auto gating = gating_call(work);
    gating_.choose(static_cast<Trace<T>&>(work), gating);
    work.start_d_gate();
  }

  /// y = base(x) + the experts that `routing` names.
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, Workspace& work, const Pass& pass = {}) const {
    check_tokens(x, work, pass);
    work.pass = pass;
    mix(x, {}, routing, y, work);
  }

  void forward(View<const T> x, View<T> y, Workspace& work, const Pass& pass = {}) const requires(!external) {
    check_output("forward: rows of y", "forward: columns of y", y, x.rows());
    route(x, work, pass);
    mix(x, work.latent, work.routing, y, work);
  }

  /// Leaves in `work` what forward would, for the price of routing and down-projection: one workspace serves the
  /// backward of any number of layers, if each recomputes first. Nothing need be kept of forward but x.
  void recompute(View<const T> x, Workspace& work, const Pass& pass = {}) const
      requires(!external && RankedExpertPolicy<Experts, Execution>) {
    route(x, work, pass);
    auto call = experts_call(work);
    experts_.down(x, work.latent, work.routing, call);
  }

  // ---- backward, after the forward half on the same workspace, with the same x

  /// d_gate [pairs] is accumulated: several layers that shared a routing add to one. Empty: not wanted.
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                      Gradients& gradients, Workspace& work) const requires TrainableExpertPolicy<Experts, Execution> {
    if constexpr (!TrainableBasePolicy<Base, Execution>)
      if (d_x)
        throw Error(ErrorCode::not_trainable, "backward: this base has no backward, so d_x must be an empty view");
    check_output("backward: rows of d_y", "backward: columns of d_y", d_y, x.rows());
    check_gradient(x, d_x);
    require_equal(ErrorCode::shape, "backward: tokens of the routing", x.rows(), routing.tokens());
    if (!d_gate.empty())
      require_equal(ErrorCode::shape, "backward: size of d_gate", routing.pairs(), Index(d_gate.size()));
    auto call = experts_call(work);
    const bool mixes_here = d_x && mixes_d_x(work);
    experts_.backward(x, routing, d_y, d_gate, mixes_here ? View<T>{} : d_x, gradients.experts, call);
    if constexpr (TrainableBasePolicy<Base, Execution>) {
      auto base = base_call(work);
      base_.backward(x, d_y, mixes_here ? View<T>{} : d_x, gradients.base, base);
    }
    if (mixes_here) mix_backward(d_y, routing, d_x, work);
  }

  /// From work.d_gate(), and what losses added to work.d_scores() and work.d_logits(), to the router.
  void route_backward(View<const T> x, View<T> d_x, Gradients& gradients,
                      Workspace& work) const requires routing_trains {
    require_equal(ErrorCode::shape, "backward: rows of x", work.tokens(), x.rows());
    check_gradient(x, d_x);
    auto gating = gating_call(work);
    gating_.backward(static_cast<Trace<T>&>(work), gating);
    auto call = router_call(work);
    const View<const T> d_logits = work.d_logits();
    if constexpr (reads_latent) {
      auto experts = experts_call(work);
      const View<T> d_latent = experts_.d_latent(x.rows(), experts);
      router_.backward(work.latent, d_logits, d_latent, gradients.router, call);
      experts_.project_backward(x, d_latent, d_x, gradients.experts, experts);
    } else {
      router_.backward(x, d_logits, d_x, gradients.router, call);
    }
  }

  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Gradients& gradients,
                Workspace& work) const requires routing_trains && TrainableExpertPolicy<Experts, Execution> {
    if constexpr (LinearlyReadingRouter<Router> && !reads_latent) {
      if (d_x && mixes_d_x(work) && router_.fuses_d_x(work.pass)) {
        check_gradient(x, d_x);
        apply_backward(x, work.routing, d_y, work.d_gate(), View<T>{}, gradients, work);
        route_backward(x, View<T>{}, gradients, work);
        const LinearTerm<T> router{std::as_const(work).d_logits(), router_.input_weight()};
        return mix_backward(d_y, work.routing, d_x, work, router);
      }
    }
    apply_backward(x, work.routing, d_y, work.d_gate(), d_x, gradients, work);
    route_backward(x, d_x, gradients, work);
  }

  // ---- merging

  /// Why the experts cannot become part of one weight; empty when they can.
  std::string merge_obstacle() const {
    if constexpr (!MergeableExpertPolicy<Experts>)
      return "its experts are not linear maps";
    else if constexpr (external)
      return "its routing comes from outside";
    else if constexpr (!ConstantGatingPolicy<Gating>)
      return "its gating gives every token weights of its own";
    else
      return gating_.token_dependence(experts_.experts());
  }
  bool can_merge() const { return merge_obstacle().empty(); }

  /// weight += the sum of all experts, so that a plain linear layer with it does what this layer does.   weight [O x I]
  /// Throws Error(not_mergeable) with the reason, weight untouched.
  void merge_into(View<T> weight) const {
    require_equal(ErrorCode::shape, "merge_into: rows of the weight", out(), weight.rows());
    require_equal(ErrorCode::shape, "merge_into: columns of the weight", in(), weight.cols());
    if (const std::string obstacle = merge_obstacle(); !obstacle.empty())
      throw Error(ErrorCode::not_mergeable, "merge_into: this layer cannot be merged: " + obstacle);
    if constexpr (MergeableExpertPolicy<Experts> && ConstantGatingPolicy<Gating>)
      for (Index e = 0; e < experts_.experts(); ++e)
        experts_.add_delta(e, gating_.constant_gate(experts_.experts()).value(), weight);
  }

  Router& router() { return router_; }
  Gating& gating() { return gating_; }
  Experts& experts() { return experts_; }
  Base& base() { return base_; }
  const Router& router() const { return router_; }
  const Gating& gating() const { return gating_; }
  const Experts& experts() const { return experts_; }
  const Base& base() const { return base_; }
  const Execution& execution() const { return execution_; }

 private:
  Index extra() const {
    if constexpr (external)
      return 0;
    else
      return gating_.extra();
  }
  CallSize capacity(Index max_tokens, Index max_pairs, std::pmr::memory_resource* memory) const {
    if (max_tokens < 0 || max_pairs < 0)
      throw Error(ErrorCode::option, "workspace: expected sizes of at least 0, found " + std::to_string(max_tokens) +
                                         " tokens and " + std::to_string(max_pairs) + " pairs");
    Index pairs = max_pairs;
    if constexpr (!external)
      pairs = std::max(pairs, Index(gating_.max_pairs(max_tokens, experts_.experts())));
    else if (pairs == 0)
      pairs = max_tokens * experts_.experts();
    return {max_tokens, pairs, reads_latent, memory, experts_.experts()};
  }

  auto router_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Router>>{execution_, work.pass, work.router_scratch};
  }
  auto gating_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Gating>>{execution_, work.pass, work.gating_scratch};
  }
  auto base_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Base>>{execution_, work.pass, work.base_scratch};
  }
  auto experts_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Experts>>{execution_, work.pass, work.experts_scratch};
  }

  /// The latent may be empty: only forward() knows that it belongs to this x.
  void mix(View<const T> x, View<const T> latent, const Routing<T>& routing, View<T> y, Workspace& work) const {
    check_output("apply: rows of y", "apply: columns of y", y, x.rows());
    require_equal(ErrorCode::shape, "apply: tokens of the routing", x.rows(), routing.tokens());
    require_equal(ErrorCode::shape, "apply: experts of the routing", experts_.experts(), routing.experts());
    if (!routing.finished())
      throw Error(ErrorCode::shape, "apply: expected a routing after finish(), found one before");
    auto call = experts_call(work);
    if constexpr (mixes) {
      execution_.linear(x, base_.weights(), y, experts_.down(x, latent, routing, call));
    } else {
      auto base = base_call(work);
      base_.forward(x, y, base);
      experts_.forward(x, latent, routing, y, call);
    }
  }

  bool mixes_d_x(const Workspace& work) const {
    if constexpr (mixes) return experts_.fuses_d_x(work.pass);
    return false;
  }

  /// d_x += what base, experts and, perhaps, the router add to it, in one pass.
  void mix_backward(View<const T> d_y, const Routing<T>& routing, View<T> d_x, Workspace& work,
                    const auto&... router) const {
    if constexpr (mixes) {
      auto call = experts_call(work);
      execution_.linear_backward(d_y, base_.weights(), d_x, experts_.d_x_terms(routing, call), router...);
    }
  }

  void check_tokens(View<const T> x, const Workspace& work, const Pass& pass) const {
    require_equal(ErrorCode::shape, "forward: columns of x", in(), x.cols());
    if (x.rows() > work.max_tokens())
      throw Error(ErrorCode::capacity, "forward: workspace made for " + std::to_string(work.max_tokens()) +
                                           " tokens, x has " + std::to_string(x.rows()));
    require_equal(ErrorCode::capacity, "forward: experts of the workspace", experts_.experts(), work.experts());
    if (!pass.token_mask.empty())
      require_equal(ErrorCode::shape, "forward: size of the token mask", x.rows(), Index(pass.token_mask.size()));
    if (!pass.routed.empty())
      require_equal(ErrorCode::shape, "forward: size of the flags of routed tokens", x.rows(),
                    Index(pass.routed.size()));
    check_forced(pass, x.rows());
    const auto& begin = pass.sequence_begin;
    if (begin.empty()) return;
    if (begin.front() != 0 || !std::is_sorted(begin.begin(), begin.end()) || begin.back() > x.rows())
      throw Error(ErrorCode::shape, "forward: expected sequence starts that ascend from 0 to at most " +
                                        std::to_string(x.rows()) + " tokens");
  }
  void check_forced(const Pass& pass, Index tokens) const {
    if (pass.forced.empty()) return;
    require_equal(ErrorCode::shape, "forward: size of the forced experts", tokens, Index(pass.forced.size()));
    const Index scored = Index(experts_.experts()) + std::min<Index>(0, extra());
    for (int e : pass.forced)
      if (e < -1 || e >= scored)
        throw Error(ErrorCode::option, "forward: expected forced experts from -1 to " + std::to_string(scored - 1) +
                                           ", found " + std::to_string(e));
  }
  void check_output(std::string_view rows, std::string_view columns, View<const T> y, Index tokens) const {
    require_equal(ErrorCode::shape, rows, tokens, y.rows());
    require_equal(ErrorCode::shape, columns, out(), y.cols());
  }
  void check_gradient(View<const T> x, View<T> d_x) const {
    if (!d_x) return;
    require_equal(ErrorCode::shape, "backward: rows of d_x", x.rows(), d_x.rows());
    require_equal(ErrorCode::shape, "backward: columns of d_x", x.cols(), d_x.cols());
  }

  [[no_unique_address]] Router router_;
  [[no_unique_address]] Gating gating_;
  Experts experts_;
  Base base_;
  [[no_unique_address]] Execution execution_;
};

}  // namespace mole
