// SPDX-License-Identifier: MIT
// AnyLinear: a layer of any composition behind one type, for hosts that hold many kinds.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/error.hpp"
#include "mole/core/pass.hpp"
#include "mole/core/state.hpp"
#include "mole/core/trace.hpp"
#include "mole/layer/layer_parameters.hpp"
#include "mole/surgery/merge.hpp"

#include <concepts>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Owns a MixtureLinear or an ExpertLinear, its workspace and its gradients, and erases its type.
///
///   x, d_x [N x I]   y, d_y [N x O]   N <= max_tokens   d_gate [pairs]
///
/// A routing from outside, that of another layer too, is applied by apply():
///     q.forward(x, y_q);
///     k.apply(x, q.trace().routing, y_k);
///     k.apply_backward(x, q.trace().routing, d_y_k, q.trace().d_gate(), d_x);
///     q.backward(x, d_y_q, d_x);  // d_gate of both layers reaches the router
/// An ExpertLinear, which has no router, takes a routing in this way alone: its forward(), backward() and trace() throw
/// Error(order).
///
/// One AnyLinear serves one call at a time, as it holds the only workspace. Move-only. No call allocates, but for
/// set_trainable().
template <class T>
class AnyLinear {
 public:
  using Scalar = T;
  /// f(name, parameter, gradient); an empty gradient is frozen.
  using Visitor = std::function<void(std::string_view name, View<T> parameter, View<T> gradient)>;

  /// `max_pairs` of token and expert beyond what the layer's own gating can choose make room for routings from outside.
  template <class Layer>
  requires std::same_as<typename Layer::Scalar, T> AnyLinear(Layer layer, Index max_tokens,
                                                             TrainableParts trainable = {}, Index max_pairs = 0)
      : model_(std::make_unique<Model<Layer>>(std::move(layer), max_tokens, trainable, max_pairs)) {}

  Index in() const { return model().in(); }
  Index out() const { return model().out(); }

  void forward(View<const T> x, View<T> y, const Pass& pass = {}) { model().forward(x, y, pass); }

  /// Adds to d_x and to the gradients inside. Throws Error(not_trainable) for a layer of inference-only policies.
  void backward(View<const T> x, View<const T> d_y, View<T> d_x) { model().backward(x, d_y, d_x); }

  /// As ExpertLinear::apply and apply_backward.
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass = {}) {
    model().apply(x, routing, y, pass);
  }
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x) {
    model().apply_backward(x, routing, d_y, d_gate, d_x);
  }

  /// Is what a token gets the sum of what each of its pairs adds? Not so for experts that act on each other.
  bool pairs_add_up() const { return model().pairs_add_up(); }

  /// What a caller hands over to the router, and finds there between forward and backward:
  ///     layer.router_scratch<RecurrentRouter<float>>().carry = {.in = h_1, .out = h_2};
  ///     layer.router_scratch<NoisyRouter<LinearRouter<float>>>().clean   // [max_tokens x E], for a load loss
  /// Throws Error(option) unless the layer's router is a Router.
  template <class Router>
  ScratchOf<Router>& router_scratch() {
    void* const found = model().router_scratch(&type_of<Router>);
    require(found != nullptr, ErrorCode::option,
            "AnyLinear: expected a layer with the router of this router_scratch(), found one with another or none");
    return *static_cast<ScratchOf<Router>*>(found);
  }

  /// Logits, scores and routing of the last forward: for losses, between forward and backward, and for statistics.
  Trace<T>& trace() { return model().trace(); }

  /// Sets which parts learn from now on; their gradients start at zero. Pointers to gradients that layers share
  /// (gradients<Layer>()) are null afterwards: set them again.
  void set_trainable(TrainableParts trainable) { model().set_trainable(trainable); }
  void zero_gradients() { model().zero_gradients(); }
  void for_each_tensor(const Visitor& f) { model().for_each_tensor(f); }
  /// As ExpertLinear::move_tensors, of the parameters and of the gradients inside.
  using Place = std::function<View<T>(std::string_view name, View<T> tensor)>;
  void move_tensors(const Place& place) { model().move_tensors(place); }
  void move_gradients(const Place& place) { model().move_gradients(place); }
  /// As MixtureLinear::for_each_state.
  template <class F>
  void for_each_state(F&& f) {
    model().for_each_state(
        [&](std::string_view name, StateSpan numbers) { std::visit([&](auto span) { f(name, span); }, numbers); });
  }

  /// The layer inside if it is a Layer, else null. Changes of its sizes invalidate the workspace held here: move the
  /// layer out, change it, and make another AnyLinear of it.
  template <class Layer>
  Layer* target() {
    return model().type() == &type_of<Layer> ? &static_cast<Model<Layer>*>(model_.get())->layer : nullptr;
  }

  /// The gradients inside if the layer is a Layer, else null. Those of a layer that shares parameters with others point
  /// to where it adds the share of these.
  template <class Layer>
  typename Layer::Gradients* gradients() {
    return model().type() == &type_of<Layer> ? &static_cast<Model<Layer>*>(model_.get())->gradients : nullptr;
  }

  /// The workspace inside if the layer is a Layer, else null: for what its experts leave between forward and backward.
  ///     any.target<Layer>()->experts().maps().running().update(any.workspace<Layer>()->experts_scratch.maps.batch);
  template <class Layer>
  typename Layer::Workspace* workspace() {
    return model().type() == &type_of<Layer> ? &static_cast<Model<Layer>*>(model_.get())->work : nullptr;
  }

  /// As the functions of surgery/merge.hpp.
  void merge_into(View<T> weight) const { model().merge_into(weight); }
  std::string merge_obstacle() const { return model().merge_obstacle(); }
  bool can_merge() const { return merge_obstacle().empty(); }

 private:
  /// What is called; none after a move.
  auto& model() const {
    require(model_ != nullptr, ErrorCode::order, "AnyLinear: expected a layer, found one that was moved from");
    return *model_;
  }

  [[noreturn]] static void throw_not_trainable() {
    throw Error(ErrorCode::not_trainable,
                "AnyLinear: expected a layer of trainable policies, found inference-only ones");
  }
  [[noreturn]] static void throw_without_router(const char* call) {
    throw Error(ErrorCode::order, std::string("AnyLinear: ") + call +
                                      ": expected a layer with a router, found one that applies routings from outside");
  }

  using StateVisitor = std::function<void(std::string_view name, StateSpan numbers)>;

  /// Its address names a type of layer or router, also without run-time type information.
  template <class Layer>
  static inline char type_of = 0;  // not const: linkers may fold constants into one

  struct Interface {
    virtual ~Interface() = default;
    virtual const char* type() const = 0;
    virtual Index in() const = 0;
    virtual Index out() const = 0;
    virtual void forward(View<const T> x, View<T> y, const Pass& pass) = 0;
    virtual void backward(View<const T> x, View<const T> d_y, View<T> d_x) = 0;
    virtual void apply(View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass) = 0;
    virtual void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate,
                                View<T> d_x) = 0;
    virtual bool pairs_add_up() const = 0;
    virtual void* router_scratch(const char* router) = 0;
    virtual Trace<T>& trace() = 0;
    virtual void set_trainable(TrainableParts trainable) = 0;
    virtual void zero_gradients() = 0;
    virtual void for_each_tensor(const Visitor& f) = 0;
    virtual void move_tensors(const Place& place) = 0;
    virtual void move_gradients(const Place& place) = 0;
    virtual void for_each_state(const StateVisitor& f) = 0;
    virtual void merge_into(View<T> weight) const = 0;
    virtual std::string merge_obstacle() const = 0;
  };

  template <class Layer>
  struct Model final : Interface {
    Model(Layer l, Index max_tokens, TrainableParts trainable, Index max_pairs)
        : layer(std::move(l)), work(layer.workspace(max_tokens, max_pairs)), gradients(layer.gradients(trainable)) {}

    static constexpr bool routes = requires(Layer & l) { l.router(); };

    const char* type() const override { return &type_of<Layer>; }
    Index in() const override { return layer.in(); }
    Index out() const override { return layer.out(); }
    void forward(View<const T> x, View<T> y, const Pass& pass) override {
      if constexpr (routes)
        layer.forward(x, y, work, pass);
      else
        throw_without_router("forward");
    }
    void backward(View<const T> x, View<const T> d_y, View<T> d_x) override {
      if constexpr (!routes)
        throw_without_router("backward");
      else if constexpr (requires { layer.backward(x, d_y, d_x, gradients, work); })
        layer.backward(x, d_y, d_x, gradients, work);
      else
        throw_not_trainable();
    }
    void apply(View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass) override {
      layer.apply(x, routing, y, work, pass);
    }
    void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate,
                        View<T> d_x) override {
      if constexpr (requires { layer.apply_backward(x, routing, d_y, d_gate, d_x, gradients, work); })
        layer.apply_backward(x, routing, d_y, d_gate, d_x, gradients, work);
      else
        throw_not_trainable();
    }
    bool pairs_add_up() const override { return mole::pairs_add_up<std::remove_cvref_t<decltype(layer.experts())>>; }
    void* router_scratch([[maybe_unused]] const char* router) override {
      if constexpr (routes)
        if (router == &type_of<std::remove_cvref_t<decltype(layer.router())>>) return &work.router_scratch;
      return nullptr;
    }
    Trace<T>& trace() override {
      if constexpr (routes)
        return work;
      else
        throw_without_router("trace");
    }
    void set_trainable(TrainableParts trainable) override { gradients = layer.gradients(trainable); }
    void zero_gradients() override { set_zero(gradients); }
    void for_each_tensor(const Visitor& f) override { layer.for_each_tensor(f, gradients); }
    void move_tensors(const Place& place) override { layer.move_tensors(place); }
    void move_gradients(const Place& place) override {
      detail::move_tensors<typename Layer::Gradients>(place, gradients);
    }
    void for_each_state(const StateVisitor& f) override { layer.for_each_state(f); }
    void merge_into(View<T> weight) const override { mole::merge_into(layer, weight); }
    std::string merge_obstacle() const override { return mole::merge_obstacle(layer); }

    Layer layer;
    typename Layer::Workspace work;
    typename Layer::Gradients gradients;
  };

  std::unique_ptr<Interface> model_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
