// SPDX-License-Identifier: MIT
// AnyLinear: a layer of any composition behind one type, for hosts that hold many kinds.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/call.hpp"
#include "mole/core/error.hpp"
#include "mole/layer/any_layer.hpp"

#include <algorithm>
#include <concepts>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Owns a MixtureLinear or an ExpertLinear, a workspace and gradients, and erases its type.
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
/// One workspace holds what one forward leaves for its backward. The one inside serves one call at a time. A host that
/// has several in flight, threads or an autograd graph, makes one for each by new_workspace(), and may call the layer
/// from all of them at once; or it keeps x alone and lets recompute() fill the workspace again before backward(). A
/// backward whose forward is not the last call of its workspace throws Error(order), and so does a second one.
///
/// Move-only; clone() copies. No call allocates, but for those that make something: new_..., clone, reserve,
/// set_trainable.
template <class T>
class AnyLinear {
  using Layer_ = detail::AnyLayer<T>;

 public:
  using Scalar = T;
  /// f(name, parameter, gradient); an empty gradient is frozen.
  using Visitor = typename Layer_::Visitor;
  /// As ExpertLinear::move_tensors.
  using Place = typename Layer_::Place;

  /// What one call leaves: for its backward, losses and statistics.
  class Workspace {
   public:
    /// Logits, scores and routing of the last forward.
    Trace<T>& trace() { return inside_->trace(); }
    /// As AnyLinear::router_scratch.
    template <class Router>
    ScratchOf<Router>& router_scratch() {
      return AnyLinear::router_scratch_in<Router>(*inside_);
    }

   private:
    friend AnyLinear;
    explicit Workspace(std::unique_ptr<detail::AnyWorkspace<T>> inside) : inside_(std::move(inside)) {}
    std::unique_ptr<detail::AnyWorkspace<T>> inside_;
  };
  /// One for each thread that trains, say.
  class Gradients {
   public:
    void set_zero() { inside_->set_zero(); }

   private:
    friend AnyLinear;
    explicit Gradients(std::unique_ptr<detail::AnyGradients<T>> inside) : inside_(std::move(inside)) {}
    std::unique_ptr<detail::AnyGradients<T>> inside_;
  };

  /// `max_pairs` of token and expert beyond what the layer's own gating can choose make room for routings from outside.
  template <class Layer>
  requires std::same_as<typename Layer::Scalar, T> AnyLinear(Layer layer, Index max_tokens,
                                                             TrainableParts trainable = {}, Index max_pairs = 0)
      : AnyLinear(std::make_unique<detail::LayerBehindAny<Layer, detail::AnyUse::training>>(std::move(layer)),
                  max_tokens, trainable, max_pairs) {}

  /// A layer whose backward() throws Error(not_trainable), and is not compiled: three quarters of the code.
  template <class Layer>
  requires std::same_as<typename Layer::Scalar, T>
  static AnyLinear for_inference(Layer layer, Index max_tokens, Index max_pairs = 0) {
    return {std::make_unique<detail::LayerBehindAny<Layer, detail::AnyUse::inference>>(std::move(layer)),
            max_tokens,
            {},
            max_pairs};
  }

  /// A copy with a workspace as large, and zero gradients. Parameters that live with the host are copied, too.
  AnyLinear clone() const { return {layer().clone(), max_tokens_, trainable_, max_pairs_}; }

  Index in() const { return layer().in(); }
  Index out() const { return layer().out(); }
  Index max_tokens() const { return max_tokens_; }

  /// Makes room for `max_tokens` in the workspace inside, if there is less; what the last forward left is gone then.
  void reserve(Index max_tokens) {
    if (max_tokens <= max_tokens_) return;
    work_ = layer().workspace(max_tokens, max_pairs_);
    max_tokens_ = max_tokens;
  }
  Workspace new_workspace(Index max_tokens, Index max_pairs = 0) const {
    return Workspace(layer().workspace(max_tokens, max_pairs));
  }
  Gradients new_gradients(TrainableParts trainable = {}) const { return Gradients(layer().gradients(trainable)); }

  // ---- calls in the workspace and with the gradients inside

  void forward(View<const T> x, View<T> y, const Pass& pass = {}) { layer().forward(x, y, *work_, pass); }
  /// As MixtureLinear::recompute. Throws Error(not_trainable) for a layer of inference-only policies.
  void recompute(View<const T> x, const Pass& pass = {}) { layer().recompute(x, *work_, pass); }
  /// Adds to d_x and to the gradients inside. Throws Error(not_trainable) for a layer of inference-only policies.
  void backward(View<const T> x, View<const T> d_y, View<T> d_x) { layer().backward(x, d_y, d_x, *gradients_, *work_); }
  /// As ExpertLinear::apply and apply_backward.
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, const Pass& pass = {}) {
    layer().apply(x, routing, y, *work_, pass);
  }
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x) {
    layer().apply_backward(x, routing, d_y, d_gate, d_x, *gradients_, *work_);
  }

  // ---- the same in others: any number at once

  void forward(View<const T> x, View<T> y, Workspace& work, const Pass& pass = {}) const {
    layer().forward(x, y, *work.inside_, pass);
  }
  void recompute(View<const T> x, Workspace& work, const Pass& pass = {}) const {
    layer().recompute(x, *work.inside_, pass);
  }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Gradients& gradients, Workspace& work) const {
    layer().backward(x, d_y, d_x, *gradients.inside_, *work.inside_);
  }
  /// Adds to the gradients inside: in one thread at a time, and so not const.
  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Workspace& work) {
    layer().backward(x, d_y, d_x, *gradients_, *work.inside_);
  }
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, Workspace& work, const Pass& pass = {}) const {
    layer().apply(x, routing, y, *work.inside_, pass);
  }
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                      Gradients& gradients, Workspace& work) const {
    layer().apply_backward(x, routing, d_y, d_gate, d_x, *gradients.inside_, *work.inside_);
  }

  // ---- the layer

  /// Is what a token gets the sum of what each of its pairs adds? Not so for experts that act on each other.
  bool pairs_add_up() const { return layer().pairs_add_up(); }

  /// What a caller hands over to the router, and finds there between forward and backward:
  ///     layer.router_scratch<RecurrentRouter<float>>().carry = {.in = h_1, .out = h_2};
  ///     layer.router_scratch<NoisyRouter<LinearRouter<float>>>().clean   // [max_tokens x E], for a load loss
  /// Throws Error(option) unless the layer's router is a Router.
  template <class Router>
  ScratchOf<Router>& router_scratch() {
    return layer(), router_scratch_in<Router>(*work_);
  }

  /// Logits, scores and routing of the last forward: for losses, between forward and backward, and for statistics.
  Trace<T>& trace() { return layer(), work_->trace(); }

  /// Replaces the base by one of its type and sizes: of a weight that the host has moved, or changed after it was
  /// packed. Throws Error(option) for a base of another type, Error(shape) for one of other sizes.
  template <BasePolicy Base>
  void set_base(Base base) {
    require(layer().set_base(&detail::type_of<Base>, &base), ErrorCode::option,
            "AnyLinear: set_base: expected a base of the layer's type, found one of another");
  }

  /// Sets which parts learn from now on; their gradients start at zero, in memory of their own. Pointers to gradients
  /// that layers share (gradients<Layer>()) are null afterwards: set them again.
  void set_trainable(TrainableParts trainable) {
    gradients_ = layer().gradients(trainable);
    trainable_ = trainable;
  }
  TrainableParts trainable() const { return trainable_; }
  void zero_gradients() { layer(), gradients_->set_zero(); }
  void for_each_tensor(const Visitor& f) { layer().for_each_tensor(f, *gradients_); }
  void for_each_tensor(const Visitor& f, Gradients& gradients) { layer().for_each_tensor(f, *gradients.inside_); }
  /// As MixtureLinear::for_each_state.
  template <class F>
  void for_each_state(F&& f) {
    layer().for_each_state(
        [&](std::string_view name, StateSpan numbers) { std::visit([&](auto span) { f(name, span); }, numbers); });
  }
  /// Of the parameters, and of the gradients inside: for bind_parameters() and bind_gradients().
  void move_tensors(const Place& place) { layer().move_tensors(place); }
  void move_gradients(const Place& place) { layer(), gradients_->move_tensors(place); }

  /// The layer inside if it is a Layer, else null. Changes of its sizes invalidate the workspace held here: move the
  /// layer out, change it, and make another AnyLinear of it.
  template <class Layer>
  Layer* target() {
    if (layer().type() != &detail::type_of<Layer>) return nullptr;
    return static_cast<Layer*>(layer().target());
  }

  /// The gradients inside if the layer is a Layer, else null. Those of a layer that shares parameters with others point
  /// to where it adds the share of these.
  template <class Layer>
  typename Layer::Gradients* gradients() {
    if (layer().type() != &detail::type_of<Layer>) return nullptr;
    return static_cast<typename Layer::Gradients*>(gradients_->target());
  }

  /// The workspace inside if the layer is a Layer, else null: for what its experts leave between forward and backward.
  ///     any.target<Layer>()->experts().maps().running().update(any.workspace<Layer>()->experts_scratch.maps.batch);
  template <class Layer>
  typename Layer::Workspace* workspace() {
    if (layer().type() != &detail::type_of<Layer>) return nullptr;
    return static_cast<typename Layer::Workspace*>(work_->target());
  }

  /// As the functions of surgery/merge.hpp.
  void merge_into(View<T> weight) const { layer().merge_into(weight); }
  std::string merge_obstacle() const { return layer().merge_obstacle(); }
  bool can_merge() const { return merge_obstacle().empty(); }

 private:
  AnyLinear(std::unique_ptr<Layer_> layer, Index max_tokens, TrainableParts trainable, Index max_pairs)
      : layer_(std::move(layer)),
        work_(layer_->workspace(max_tokens, max_pairs)),
        gradients_(layer_->gradients(trainable)),
        max_tokens_(max_tokens),
        max_pairs_(max_pairs),
        trainable_(trainable) {}

  /// What is called; none after a move.
  Layer_& layer() const {
    require(layer_ != nullptr, ErrorCode::order, "AnyLinear: expected a layer, found one that was moved from");
    return *layer_;
  }

  template <class Router>
  static ScratchOf<Router>& router_scratch_in(detail::AnyWorkspace<T>& work) {
    void* const found = work.router_scratch(&detail::type_of<Router>);
    require(found != nullptr, ErrorCode::option,
            "AnyLinear: expected a layer with the router of this router_scratch(), found one with another or none");
    return *static_cast<ScratchOf<Router>*>(found);
  }

  std::unique_ptr<Layer_> layer_;
  std::unique_ptr<detail::AnyWorkspace<T>> work_;
  std::unique_ptr<detail::AnyGradients<T>> gradients_;
  Index max_tokens_, max_pairs_;
  TrainableParts trainable_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
