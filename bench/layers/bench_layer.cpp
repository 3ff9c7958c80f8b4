// SPDX-License-Identifier: MIT
#include "bench/layers/bench_layer.hpp"

#include "bench/layers/layer_parts.hpp"
#include "mole/execution/simd.hpp"
#include "mole/execution/thread_pool.hpp"

#include <memory>
#include <optional>

namespace bench {

namespace {

using T = float;
using mole::Matrix;

struct Tensors {
  Tensors(Index tokens, Index d)
      : x(support::random_matrix<T>(tokens, d, 1)),
        y(tokens, d),
        d_x(tokens, d),
        d_y(support::random_matrix<T>(tokens, d, 2)) {}

  Matrix<T> x, y, d_x, d_y;
};

/// The base alone: what the host had before.
template <class Execution>
struct Plain : Tensors {
  Plain(const LayerCase&, Index tokens, Index d, Execution execution_)
      : Tensors(tokens, d), execution(std::move(execution_)), base(FrozenLayer::of(d).base) {}

  mole::Call<Execution, mole::NoScratch> call() { return {execution, pass, scratch}; }
  void forward() {
    auto here = call();
    base.forward(x, y.view(), here);
  }
  void apply() { forward(); }
  void backward() {
    auto here = call();
    mole::NoParameters none;
    base.backward(x, d_y, d_x.view(), none, here);
  }
  LayerCost cost() const { return {x.rows(), x.cols()}; }

  Execution execution;
  mole::PackedBase<T> base;
  mole::Pass pass;
  mole::NoScratch scratch;
};

/// A layer whose B has learned something.
template <class Parts, class Execution>
struct Mixture : Tensors {
  static auto layer_of(const LayerCase& one, Index d, Execution execution) {
    mole::Rng rng(4);
    auto layer = Parts::layer(one, d, rng, std::move(execution));
    mole::fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
    return layer;
  }
  using Layer = decltype(layer_of(std::declval<LayerCase>(), Index(), std::declval<Execution>()));
  static constexpr bool external = !requires(Layer & layer) { layer.router(); };

  Mixture(const LayerCase& one_, Index tokens, Index d, Execution execution)
      : Tensors(tokens, d), one(one_), layer(layer_of(one, d, std::move(execution))), work(layer.workspace(tokens)) {
    if constexpr (external) routing = mole::Routing<T>::from_dense(support::random_matrix<T>(tokens, one.experts, 5));
    d_gate.resize(std::size_t(tokens * one.experts));
  }

  void forward() {
    if constexpr (external)
      apply();
    else
      layer.forward(x, y, work);
  }
  void apply() { layer.apply(x, routed(), y, work); }
  void backward() {
    if (!gradients) gradients = layer.gradients();
    if constexpr (external)
      layer.apply_backward(x, routing, d_y, std::span(d_gate).first(std::size_t(routing.pairs())), d_x, *gradients,
                           work);
    else
      layer.backward(x, d_y, d_x, *gradients, work);
  }
  LayerCost cost() const { return Parts::cost(one, x.cols(), routed()); }

  const mole::Routing<T>& routed() const {
    if constexpr (external)
      return routing;
    else
      return work.routing;
  }

  LayerCase one;
  Layer layer;
  typename Layer::Workspace work;
  mole::Routing<T> routing;
  std::vector<T> d_gate;
  std::optional<typename Layer::Gradients> gradients;  // made when wanted: of many experts they are large
};

template <class Setting, class Execution>
BenchLayer calls_of(const LayerCase& one, Index tokens, Index d, Execution execution) {
  const auto setting = std::make_shared<Setting>(one, tokens, d, std::move(execution));
  setting->forward();  // which experts are chosen decides what it costs
  return {[setting] { setting->forward(); }, [setting] { setting->apply(); },
          [setting] {
            setting->forward();
            setting->backward();
          },
          setting->cost()};
}

template <class Execution>
BenchLayer layer_on(const LayerCase& one, Index tokens, Index d, Execution execution) {
  switch (one.routed) {
    case Routed::nobody:
      return calls_of<Plain<Execution>>(one, tokens, d, std::move(execution));
    case Routed::always:
      return calls_of<Mixture<AlwaysParts, Execution>>(one, tokens, d, std::move(execution));
    case Routed::top_k:
      return calls_of<Mixture<TopKParts, Execution>>(one, tokens, d, std::move(execution));
    case Routed::externally:
      return calls_of<Mixture<ExternalParts, Execution>>(one, tokens, d, std::move(execution));
    case Routed::top_p:
      return calls_of<Mixture<TopPParts, Execution>>(one, tokens, d, std::move(execution));
    case Routed::flylora:
      return calls_of<Mixture<FlyLoraParts, Execution>>(one, tokens, d, std::move(execution));
  }
  throw std::out_of_range("layer case without parts");
}

}  // namespace

BenchLayer bench_layer(const LayerCase& one, Index tokens, Index d, int threads) {
  if (threads == 1) return layer_on(one, tokens, d, mole::Simd<>{});
  return layer_on(one, tokens, d, mole::Simd(mole::ThreadPool(threads)));
}

}  // namespace bench
