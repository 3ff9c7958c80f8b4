// SPDX-License-Identifier: MIT
// ModelRouting: the routings of many layers, made at once by a router that belongs to none of them.
#pragma once

#include "mole/execution/default_execution.hpp"
#include "mole/gating/gating_policy.hpp"
#include "mole/layer/call_order.hpp"
#include "mole/layer/layer_parameters.hpp"
#include "mole/router/router_policy.hpp"

#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// For how many layers a router of the whole model decides.
struct ModelRoutingOptions {
  Index layers = 1;
  Index experts = 0;  ///< of each layer
};

/// x -> the logits of M layers, columns [m C, (m + 1) C) those of layer m -> a routing for each.
///
///   x, d_x [N x features], what the router reads: such as the last hidden states of a first pass through the model
///   C = gating.columns(experts); the router has M C outputs
///
/// The layers are ExpertLinear, or any other whose apply() takes a routing:
///     routing.route(x, work);
///     layer_m.apply(x_m, work.routing(m), y_m, work_m);                                              // for all m
///     layer_m.apply_backward(x_m, work.routing(m), d_y_m, work.d_gate(m), d_x_m, gradients_m, work_m);
///     routing.route_backward(x, d_x, gradients, work);
/// Layers that share one decision share one m, and add to the same d_gate. work.trace(m) is what losses and telemetry
/// take. For an optimizer or a checkpoint: for_each_tensor(f, gradients) and for_each_state(f), as those of a layer.
///
/// Const in both directions; allocates in workspace() and gradients() alone. Throws Error(option) for less than 1 layer
/// or options of the gating that do not fit, Error(shape) for parts that do not fit each other and for x; Error(order)
/// for a route_backward() that does not follow a route() of this x. A workspace belongs to the object that made it.
template <class Router, class Gating, class Execution = DefaultExecution>
class ModelRouting {
 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  using Gradients = ParametersOf<Router>;
  using Options = ModelRoutingOptions;

  static_assert(RouterPolicy<Router, Execution>,
                "mole: Router does not model RouterPolicy (mole/router/router_policy.hpp)");
  static_assert(GatingPolicy<Gating, T, Execution>,
                "mole: Gating does not model GatingPolicy (mole/gating/gating_policy.hpp)");
  static_assert(reads_of<Router> == Reads::tokens, "mole: ModelRouting takes a Router of tokens");

  class Workspace {
   public:
    Index layers() const { return Index(traces_.size()); }
    Trace<T>& trace(Index layer) { return traces_[checked(layer)]; }
    const Routing<T>& routing(Index layer) const { return traces_[checked(layer)].routing; }
    std::span<T> d_gate(Index layer) { return traces_[checked(layer)].d_gate(); }
    /// Of all layers, from the last route().   [N x M C]
    View<const T> logits() const { return logits_.view().top(traces_[0].tokens()); }
    ScratchOf<Router>& router_scratch() { return *router_; }

   private:
    friend ModelRouting;
    Workspace(const ModelRouting& owner, const CallSize& whole, const CallSize& of_layer)
        : router_(owner.router_, whole),
          logits_(whole.tokens, owner.router_.outputs()),
          d_logits_(whole.tokens, owner.router_.outputs()) {
      for (Index m = 0; m < owner.options_.layers; ++m) {
        traces_.emplace_back(of_layer);
        gatings_.emplace_back(owner.gating_, of_layer);
      }
    }
    std::size_t checked(Index layer) const {
      require(layer >= 0 && layer < layers(), ErrorCode::option, "ModelRouting: expected a layer from 0 to ",
              layers() - 1, ", found ", layer);
      return std::size_t(layer);
    }

    OwnedScratch<Router> router_;
    Matrix<T> logits_, d_logits_;
    std::vector<Trace<T>> traces_;
    std::vector<OwnedScratch<Gating>> gatings_;
    CallOrder<T> calls_;
  };

  ModelRouting(Router router, Gating gating, const Options& options, Execution execution = {})
      : router_(std::move(router)), gating_(std::move(gating)), options_(options), execution_(std::move(execution)) {
    require(options.layers >= 1, ErrorCode::option, "ModelRouting: expected at least 1 layer, found ", options.layers);
    check_parts();
  }

  const Options& options() const { return options_; }
  Router& router() { return router_; }
  Gating& gating() { return gating_; }
  const Router& router() const { return router_; }
  const Gating& gating() const { return gating_; }

  Workspace workspace(Index max_tokens) const {
    check_parts();
    const Index pairs = Index(gating_.max_pairs(max_tokens, options_.experts));
    CallSize size{.tokens = max_tokens,
                  .pairs = pairs,
                  .experts = options_.experts,
                  .columns = columns(),
                  .shared = shared_experts(gating_)};
    size.check();
    CallSize whole = size;
    whole.columns = router_.outputs();
    return {*this, whole, size};
  }
  Gradients gradients() const { return zeros_like(Gradients(parameters_of(router_))); }

  /// Calls f(name, parameter, other...) with one View per tensor of the router, and of each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    auto&& own = parameters_of(router_);
    detail::for_each_view<Gradients>(f, own, others...);
  }
  /// As ExpertLinear::move_tensors.
  template <class Place>
  void move_tensors(Place&& place) {
    detail::move_tensors<Gradients>(place, parameters_of(router_));
  }
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
    for_each_state_within("gating", gating_, f);
  }

  /// x -> logits, scores and routing of every layer.
  void route(View<const T> x, Workspace& work, const Pass& pass = {}) const {
    check_parts();
    check_x(x, work);
    pass.check(x.rows(), options_.experts - shared_experts(gating_));
    work.calls_.begin();
    for (Trace<T>& trace : work.traces_) trace.start(x.rows(), pass);
    const View<T> logits = work.logits_.view().top(x.rows());
    forward_router(router_, x, logits, router_call(work));
    for (std::size_t m = 0; m < work.traces_.size(); ++m) {
      Trace<T>& trace = work.traces_[m];
      copy<T>(of_layer(logits, m), trace.logits());
      gating_.choose(trace, gating_call(work, m));
      trace.start_d_gate();
    }
    work.calls_.end(this, x, work.traces_[0].routing);
  }

  /// From the d_gate of all layers, and what losses added to their traces, to the router.
  void route_backward(View<const T> x, View<T> d_x, Gradients& gradients, Workspace& work) const requires
      TrainableRouterPolicy<Router, Execution> && TrainableGatingPolicy<Gating, T, Execution> {
    work.calls_.check("route_backward", this, x, work.traces_[0].routing);
    require(!d_x || (d_x.rows() == x.rows() && d_x.cols() == x.cols()), ErrorCode::shape,
            "route_backward: expected a d_x of [", x.rows(), " x ", x.cols(), "], found [", d_x.rows(), " x ",
            d_x.cols(), "]");
    require(!overlap(x, View<const T>(d_x)), ErrorCode::shape,
            "route_backward: expected d_x in other memory than x, found both in the same");
    detail::require_gradients_of(router_, gradients, "router");
    work.calls_.spend();
    const View<T> d_logits = work.d_logits_.view().top(x.rows());
    for (std::size_t m = 0; m < work.traces_.size(); ++m) {
      Trace<T>& trace = work.traces_[m];
      gating_.backward(trace, gating_call(work, m));
      copy<T>(trace.d_logits(), of_layer(d_logits, m));
    }
    router_.backward(x, View<const T>(d_logits), d_x, gradients, router_call(work));
  }

 private:
  Index columns() const { return Index(gating_.columns(options_.experts)); }
  template <class U>
  View<U> of_layer(View<U> all, std::size_t m) const {
    return all.middle_cols(Index(m) * columns(), columns());
  }

  void check_parts() const {
    detail::check_sizes(router_);
    gating_.check(options_.experts);
    require_equal(ErrorCode::shape, "ModelRouting: outputs of the router, the columns of each layer",
                  options_.layers * columns(), Index(router_.outputs()));
  }
  void check_x(const View<const T>& x, const Workspace& work) const {
    if constexpr (requires { router_.in(); })
      require_equal(ErrorCode::shape, "route: columns of x", Index(router_.in()), x.cols());
    require(x.rows() <= work.logits_.rows(), ErrorCode::capacity, "route: workspace made for ", work.logits_.rows(),
            " tokens, x has ", x.rows());
    require(work.layers() == options_.layers && work.logits_.cols() == router_.outputs(), ErrorCode::order,
            "route: expected a workspace of this object, found one of another");
  }

  auto router_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Router>>{execution_, work.traces_[0].pass, *work.router_};
  }
  auto gating_call(Workspace& work, std::size_t m) const {
    return Call<Execution, ScratchOf<Gating>>{execution_, work.traces_[m].pass, *work.gatings_[m]};
  }

  Router router_;
  Gating gating_;
  Options options_;
  [[no_unique_address]] Execution execution_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
