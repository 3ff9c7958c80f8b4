// SPDX-License-Identifier: MIT
// AnyLayer, AnyWorkspace, AnyGradients: what AnyLinear calls, of a layer of any type.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/pass.hpp"
#include "mole/core/state.hpp"
#include "mole/core/trace.hpp"
#include "mole/layer/layer_parameters.hpp"
#include "mole/surgery/merge.hpp"

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// Its address names a type, also without run-time type information.
template <class Type>
inline char type_of = 0;  // not const: linkers may fold constants into one

/// Something of a type that only its maker knows, for one kind of layer.
struct AnyPart {
  explicit AnyPart(const char* layer) : layer_type(layer) {}
  AnyPart(const AnyPart&) = delete;
  AnyPart& operator=(const AnyPart&) = delete;
  virtual ~AnyPart() = default;
  /// What that maker knows the type of.
  virtual void* target() = 0;
  const char* const layer_type;
};

template <class T>
struct AnyWorkspace : AnyPart {
  using AnyPart::AnyPart;
  virtual Trace<T>& trace() = 0;
  /// The router's scratch if the router is the one of this type, else null.
  virtual void* router_scratch(const char* router) = 0;
};

template <class T>
struct AnyGradients : AnyPart {
  using AnyPart::AnyPart;
  virtual void set_zero() = 0;
  virtual void move_tensors(const std::function<View<T>(std::string_view, View<T>)>& place) = 0;
};

/// A layer; the workspaces and gradients of its calls are those that a layer of its type has made.
template <class T>
struct AnyLayer {
  using Visitor = std::function<void(std::string_view name, View<T> parameter, View<T> gradient)>;
  using StateVisitor = std::function<void(std::string_view name, StateSpan numbers)>;
  using Place = std::function<View<T>(std::string_view name, View<T> tensor)>;
  using Work = AnyWorkspace<T>;
  using Gradients = AnyGradients<T>;

  virtual ~AnyLayer() = default;
  virtual const char* type() const = 0;
  virtual void* target() = 0;
  virtual std::unique_ptr<AnyLayer> clone() const = 0;
  virtual Index in() const = 0;
  virtual Index out() const = 0;
  virtual std::unique_ptr<Work> workspace(Index max_tokens, Index max_pairs) const = 0;
  virtual std::unique_ptr<Gradients> gradients(TrainableParts trainable) const = 0;

  virtual void forward(View<const T> x, View<T> y, Work& work, const Pass& pass) const = 0;
  virtual void recompute(View<const T> x, Work& work, const Pass& pass) const = 0;
  virtual void backward(View<const T> x, View<const T> d_y, View<T> d_x, Gradients& gradients, Work& work) const = 0;
  virtual void apply(View<const T> x, const Routing<T>& routing, View<T> y, Work& work, const Pass& pass) const = 0;
  virtual void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate,
                              View<T> d_x, Gradients& gradients, Work& work) const = 0;

  virtual bool pairs_add_up() const = 0;
  virtual void for_each_tensor(const Visitor& f, Gradients& gradients) = 0;
  virtual void for_each_state(const StateVisitor& f) = 0;
  virtual void move_tensors(const Place& place) = 0;
  /// Moves a base of this type in from `base`; false if the layer's is of another.
  virtual bool set_base(const char* base_type, void* base) = 0;
  virtual void merge_into(View<T> weight) const = 0;
  virtual std::string merge_obstacle() const = 0;
};

/// What a layer that is only for inference has instead of backward: calls that throw.
enum class AnyUse { training, inference };

template <class Layer, AnyUse use>
struct LayerBehindAny final : AnyLayer<typename Layer::Scalar> {
  using T = typename Layer::Scalar;
  using Any = AnyLayer<T>;
  using typename Any::Gradients, typename Any::Place, typename Any::StateVisitor, typename Any::Visitor,
      typename Any::Work;

  static constexpr bool routes = requires(Layer & l) { l.router(); };
  static constexpr bool trains = use == AnyUse::training;

  struct LayerWork final : Work {
    explicit LayerWork(typename Layer::Workspace w) : Work(&type_of<LayerBehindAny>), work(std::move(w)) {}
    Trace<T>& trace() override {
      if constexpr (routes)
        return work;
      else
        throw_without_router("trace");
    }
    void* router_scratch([[maybe_unused]] const char* router) override {
      if constexpr (routes)
        if (router == &type_of<std::remove_cvref_t<decltype(std::declval<Layer&>().router())>>)
          return &work.router_scratch;
      return nullptr;
    }
    void* target() override { return &work; }
    typename Layer::Workspace work;
  };
  struct LayerGradients final : Gradients {
    explicit LayerGradients(typename Layer::Gradients g)
        : Gradients(&type_of<LayerBehindAny>), gradients(std::move(g)) {}
    void set_zero() override { mole::set_zero(gradients); }
    void move_tensors(const Place& place) override {
      detail::move_tensors<typename Layer::Gradients>(place, gradients);
    }
    void* target() override { return &gradients; }
    typename Layer::Gradients gradients;
  };

  explicit LayerBehindAny(Layer l) : layer(std::move(l)) {}

  const char* type() const override { return &type_of<Layer>; }
  void* target() override { return &layer; }
  std::unique_ptr<Any> clone() const override {
    if constexpr (std::copy_constructible<Layer>)
      return std::make_unique<LayerBehindAny>(layer);
    else
      fail(ErrorCode::option, {"AnyLinear: clone: expected a layer of parts that can be copied, found one of others"});
  }
  Index in() const override { return layer.in(); }
  Index out() const override { return layer.out(); }
  std::unique_ptr<Work> workspace(Index max_tokens, Index max_pairs) const override {
    return std::make_unique<LayerWork>(layer.workspace(max_tokens, max_pairs));
  }
  std::unique_ptr<Gradients> gradients(TrainableParts trainable) const override {
    if constexpr (trains)
      return std::make_unique<LayerGradients>(layer.gradients(trainable));
    else
      return std::make_unique<LayerGradients>(typename Layer::Gradients());
  }

  void forward(View<const T> x, View<T> y, Work& work, const Pass& pass) const override {
    if constexpr (routes)
      layer.forward(x, y, of(work), pass);
    else
      throw_without_router("forward");
  }
  void recompute(View<const T> x, Work& work, const Pass& pass) const override {
    if constexpr (!routes)
      throw_without_router("recompute");
    else if constexpr (trains && requires { layer.recompute(x, of(work), pass); })
      layer.recompute(x, of(work), pass);
    else
      throw_not_trainable("recompute");
  }
  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Gradients& gradients, Work& work) const override {
    if constexpr (!routes)
      throw_without_router("backward");
    else if constexpr (trains && requires { layer.backward(x, d_y, d_x, of(gradients), of(work)); })
      layer.backward(x, d_y, d_x, of(gradients), of(work));
    else
      throw_not_trainable("backward");
  }
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, Work& work, const Pass& pass) const override {
    layer.apply(x, routing, y, of(work), pass);
  }
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                      Gradients& gradients, Work& work) const override {
    if constexpr (trains && requires { layer.apply_backward(x, routing, d_y, d_gate, d_x, of(gradients), of(work)); })
      layer.apply_backward(x, routing, d_y, d_gate, d_x, of(gradients), of(work));
    else
      throw_not_trainable("apply_backward");
  }

  bool pairs_add_up() const override { return mole::pairs_add_up<std::remove_cvref_t<decltype(layer.experts())>>; }
  void for_each_tensor(const Visitor& f, Gradients& gradients) override { layer.for_each_tensor(f, of(gradients)); }
  void for_each_state(const StateVisitor& f) override { layer.for_each_state(f); }
  void move_tensors(const Place& place) override { layer.move_tensors(place); }
  bool set_base(const char* base_type, void* base) override {
    using Base = std::remove_cvref_t<decltype(layer.base())>;
    if (base_type != &type_of<Base>) return false;
    layer.set_base(std::move(*static_cast<Base*>(base)));
    return true;
  }
  void merge_into(View<T> weight) const override { mole::merge_into(layer, weight); }
  std::string merge_obstacle() const override { return mole::merge_obstacle(layer); }

  static typename Layer::Workspace& of(Work& work) {
    require(work.layer_type == &type_of<LayerBehindAny>, ErrorCode::order,
            "AnyLinear: expected a workspace of this layer, found that of a layer of another type");
    return static_cast<LayerWork&>(work).work;
  }
  static typename Layer::Gradients& of(Gradients& gradients) {
    require(gradients.layer_type == &type_of<LayerBehindAny>, ErrorCode::order,
            "AnyLinear: expected gradients of this layer, found those of a layer of another type");
    return static_cast<LayerGradients&>(gradients).gradients;
  }
  [[noreturn]] static void throw_not_trainable(const char* call) {
    fail(ErrorCode::not_trainable,
         {"AnyLinear: ", call, ": expected a layer of trainable policies",
          trains ? ", found inference-only ones" : " that was not made for_inference, found one that was"});
  }
  [[noreturn]] static void throw_without_router(const char* call) {
    fail(ErrorCode::order,
         {"AnyLinear: ", call, ": expected a layer with a router, found one that applies routings from outside"});
  }

  Layer layer;
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
