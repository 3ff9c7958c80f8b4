// SPDX-License-Identifier: MIT
// MixtureLinear: a linear layer with a routed mixture of experts on top.
#pragma once

#include "mole/gating/gating_policy.hpp"
#include "mole/layer/expert_linear.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = base(x) + sum_e s_e g_e(x) B_e (A_e x): an ExpertLinear that makes its own routing.
///
///   x, d_x [N x I]   y, d_y [N x O]
///
///   forward  = route + apply                       route: x -> logits -> routing      apply: x, routing -> y
///   backward = apply_backward + route_backward     the halves in opposite order
///
/// Constness, accumulation, errors and allocation are those of ExpertLinear.
template <class Router, class Gating, class Experts, class Base, class Execution = DefaultExecution>
class MixtureLinear : public ExpertLinear<Experts, Base, Execution> {
  using Half = ExpertLinear<Experts, Base, Execution>;

 public:
  using T = typename Half::T;
  using Gradients = LayerParameters<Router, Experts, Base>;
  using Workspace = mole::Workspace<T, Router, Gating, Experts, Base>;

 private:
  static constexpr bool reads_latent = reads_of<Router> == Reads::latent;
  static constexpr bool routing_trains =
      TrainableRouterPolicy<Router, Execution> && TrainableGatingPolicy<Gating, T, Execution>;

  static_assert(RouterPolicy<Router, Execution>,
                "mole: Router does not model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(GatingPolicy<Gating, T, Execution>,
                "mole: Gating does not model GatingPolicy (mole/gating/gating_policy.hpp)");
  static_assert(std::is_same_v<T, typename Router::Scalar>, "mole: Experts and Router have different Scalars");
  static_assert(!reads_latent || LatentExpertPolicy<Experts, Execution>,
                "mole: the Router reads the experts' latent, but Experts do not model LatentExpertPolicy "
                "(mole/expert/expert_policy.hpp)");

 public:
  /// Throws Error(shape) when the roles do not fit each other, Error(option) when the gating does not fit the experts.
  MixtureLinear(Router router, Gating gating, Experts experts, Base base, Execution execution = {})
      : Half(std::move(experts), std::move(base), std::move(execution)),
        router_(std::move(router)),
        gating_(std::move(gating)) {
    Half::shape_ = {};  // that of the half
    shape();
  }

  Router& router() { return Half::shape_.may_change(), router_; }
  Gating& gating() { return Half::shape_.may_change(), gating_; }
  const Router& router() const { return router_; }
  const Gating& gating() const { return gating_; }

  /// As ExpertLinear::workspace; a `max_pairs` beyond what the gating can choose makes room for routings from outside.
  Workspace workspace(Index max_tokens, Index max_pairs = 0,
                      std::pmr::memory_resource* memory = std::pmr::get_default_resource(),
                      std::size_t bytes = 0) const {
    const std::uint64_t own = shape();
    return detail::workspace_in(memory, make_workspace(max_tokens, max_pairs), own, bytes);
  }
  std::size_t workspace_bytes(Index max_tokens, Index max_pairs = 0) const {
    shape();
    return bytes_of(make_workspace(max_tokens, max_pairs));
  }

  /// Zero gradients for the parts that learn, empty ones for the others.
  Gradients gradients(TrainableParts trainable = {}) const {
    Gradients gradients{Half::gradients(trainable), {}};
    if (trainable.router) gradients.router = zeros_like(ParametersOf<Router>(parameters_of(router_)));
    return gradients;
  }

  /// As ExpertLinear::for_each_tensor, the router's tensors first.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    auto own = own_parameters();
    detail::for_each_view<Gradients>(f, own, others...);
  }

  /// As ExpertLinear::move_tensors.
  template <class Place>
  void move_tensors(Place&& place) {
    auto own = own_parameters();
    detail::move_tensors<Gradients>(place, own);
  }

  /// As ExpertLinear::for_each_state, after "router.bias", "gating.select.bias" and so on.
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
    for_each_state_within("gating", gating_, f);
    Half::for_each_state(f);
  }

  // ---- forward

  /// x -> logits, scores and routing in `work`.
  void route(View<const T> x, Workspace& work, const Pass& pass = {}) const {
    prepare(work);
    Half::check_tokens(x, work);
    pass.check(x.rows(), Half::experts_.experts() - shared_experts(gating_));
    work.routing_calls.begin();
    work.expert_calls.begin();
    work.start(x.rows(), pass);
    detail::AbandonedUnlessKept<T> abandoned(work);
    half(work).pass = pass;
    View<const T> features = x;
    if constexpr (reads_latent) features = work.latent = Half::experts_.project(x, Half::experts_call(work));
    forward_router(router_, features, work.logits(), router_call(work));
    gating_.choose(static_cast<Trace<T>&>(work), gating_call(work));
    work.start_d_gate();
    abandoned.keep();
    work.routing_calls.end(this, x, work.routing);
  }

  void forward(View<const T> x, View<T> y, Workspace& work, const Pass& pass = {}) const {
    Half::check_output(x, y);
    route(x, work, pass);
    Half::add_experts(x, work.latent, work.routing, y, work);
  }

  /// Leaves the same in `work` as forward, at the cost of routing and down-projection alone: one workspace serves the
  /// backward of any number of layers, if each recomputes first. Of forward, only x has to be kept.
  void recompute(View<const T> x, Workspace& work,
                 const Pass& pass = {}) const requires RankedExpertPolicy<Experts, Execution> {
    route(x, work, pass);
    Half::experts_.down(x, work.latent, work.routing, Half::experts_call(work));
    work.expert_calls.end(this, x, work.routing);
  }

  /// As ExpertLinear::apply, with a routing from outside or that of route().
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, Workspace& work, const Pass& pass = {}) const {
    prepare(work);
    if constexpr (reads_latent)  // a new latent takes the place of what the router has read
      if (!work.routing_calls.is_of(x) || !pass.draws_as(work.pass)) work.routing_calls.begin();
    Half::apply_in(work, x, routing, y, pass);  // not Half::apply, which would lay out its half alone
  }

  // ---- backward, after the forward half on the same workspace, with the same x

  /// As ExpertLinear::apply_backward.
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                      typename Half::Gradients& gradients,
                      Workspace& work) const requires TrainableExpertPolicy<Experts, Execution> {
    Half::check_unchanged(work, shape());
    Half::apply_backward_in(work, x, routing, d_y, d_gate, d_x, gradients);
  }

  /// From work.d_gate(), and what losses added to work.d_scores() and work.d_logits(), to the router.
  void route_backward(View<const T> x, View<T> d_x, Gradients& gradients,
                      Workspace& work) const requires routing_trains {
    Half::check_unchanged(work, shape());
    work.routing_calls.check("route_backward", this, x, work.routing);
    Half::check_d_x(x, d_x);
    detail::require_gradients_of(router_, gradients.router, "router");
    if constexpr (reads_latent) detail::require_gradients_of(Half::experts_, gradients.experts, "experts");
    routing_backward(x, d_x, gradients, work);
  }

  /// apply_backward() with work.d_gate(), then route_backward(). Gates that nothing learns from (Unit) get no gradient.
  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Gradients& gradients,
                Workspace& work) const requires routing_trains && TrainableExpertPolicy<Experts, Execution> {
    Half::check_unchanged(work, shape());
    work.expert_calls.check("backward", this, x, work.routing);
    work.routing_calls.check("backward", this, x, work.routing);
    Half::check_backward(x, work.routing, d_y, wanted_d_gate(work), d_x, gradients);
    detail::require_gradients_of(router_, gradients.router, "router");
    if constexpr (LinearlyReadingRouter<Router> && !reads_latent) {
      if (d_x && Half::fuses_d_x(half(work).pass) && router_.fuses_d_x(work.pass)) {
        Half::experts_backward(x, work.routing, d_y, wanted_d_gate(work), {}, gradients, work, true);
        routing_backward(x, {}, gradients, work);
        const LinearTerm<T> router{std::as_const(work).d_logits(), router_.input_weight()};
        return Half::add_d_x(d_y, work.routing, d_x, work, router);
      }
    }
    Half::experts_backward(x, work.routing, d_y, wanted_d_gate(work), d_x, gradients, work,
                           Half::fuses_d_x(half(work).pass));
    routing_backward(x, d_x, gradients, work);
  }

 private:
  /// References to the parameters of the parts.
  auto own_parameters() {
    struct {
      decltype(parameters_of(std::declval<Router&>())) router;
      decltype(parameters_of(std::declval<Experts&>())) experts;
      decltype(parameters_of(std::declval<Base&>())) base;
    } own{parameters_of(router_), parameters_of(Half::experts_), parameters_of(Half::base_)};
    return own;
  }

  static typename Half::Workspace& half(Workspace& work) { return work; }
  static std::span<T> wanted_d_gate(Workspace& work) {
    return gates_have_gradient<Gating> ? work.d_gate() : std::span<T>();
  }

  void prepare(Workspace& work) const {
    const Index pairs = gating_.max_pairs(work.max_tokens(), Half::experts_.experts());
    if (const std::uint64_t own = shape(); work.shape != own || work.room_for_pairs < pairs) adapt(work, own);
  }
  MOLE_COLD void adapt(Workspace& work, std::uint64_t shape) const {
    detail::lay_out_anew(work, make_workspace(work.max_tokens(), work.asked_pairs), shape);
  }
  void check_parts() const {
    Half::check_parts();
    detail::check_sizes(router_);
    gating_.check(Half::experts_.experts());
    require_equal(ErrorCode::shape, "layer: outputs of the router", Index(gating_.columns(Half::experts_.experts())),
                  Index(router_.outputs()));
    if constexpr (requires { router_.in(); } && !reads_latent)
      require_equal(ErrorCode::shape, "layer: inputs of the router", Half::in(), Index(router_.in()));
  }
  std::uint64_t shape() const {
    return Half::shape_.number(LayerShape::Of::whole, Half::borrows || borrows_parameters<Router>, [this] {
      check_parts();
      return Half::layout_of(make_workspace(3, 5));
    });
  }

  /// route_backward() after its checks.
  void routing_backward(View<const T> x, View<T> d_x, Gradients& gradients, Workspace& work) const {
    work.routing_calls.spend();
    gating_.backward(static_cast<Trace<T>&>(work), gating_call(work));
    const View<const T> d_logits = work.d_logits();
    if constexpr (reads_latent) {
      const View<T> d_latent = Half::experts_.d_latent(x.rows(), Half::experts_call(work));
      router_.backward(work.latent, d_logits, d_latent, gradients.router, router_call(work));
      Half::experts_.project_backward(x, d_latent, d_x, gradients.experts, Half::experts_call(work));
    } else {
      router_.backward(x, d_logits, d_x, gradients.router, router_call(work));
    }
  }

  auto make_workspace(Index max_tokens, Index max_pairs) const {
    checked_int("workspace: tokens", max_tokens);
    const Index count = Half::experts_.experts();
    const CallSize size{.tokens = max_tokens,
                        .pairs = std::max(max_pairs, Index(gating_.max_pairs(max_tokens, count))),
                        .experts = count,
                        .columns = gating_.columns(count),
                        .shared = shared_experts(gating_),
                        .latent = reads_latent};
    size.check();
    return [this, size, max_pairs](Arena& arena) {
      Workspace work(router_, gating_, Half::experts_, Half::base_, size, arena);
      work.asked_pairs = max_pairs;
      return work;
    };
  }

  auto router_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Router>>{Half::execution(), work.pass, work.router_scratch};
  }
  auto gating_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Gating>>{Half::execution(), work.pass, work.gating_scratch};
  }

  [[no_unique_address]] Router router_;
  [[no_unique_address]] Gating gating_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
