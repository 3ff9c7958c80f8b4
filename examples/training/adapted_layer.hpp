// SPDX-License-Identifier: MIT
// AdaptedLayer: a method's layer, with what the method does besides its forward and backward.
#pragma once

#include "training/method.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace training {

/// Stands for a linear layer of a host.   x, d_x [N x I]; y, d_y [N x O]
class AdaptedLayer {
 public:
  /// After each forward, with x and the pass.
  using Watcher = std::function<void(mole::AnyLinear<float>&, mole::View<const float>, const mole::Pass&)>;

  /// `method`, `shared`, which may be null, and `pass` are borrowed: mode and random key of the current step, to which
  /// it adds its own `number`.
  AdaptedLayer(const Method& method, Method::Layer layer, std::uint64_t number, Shared* shared, const mole::Pass& pass)
      : method_(method), layer_(std::move(layer)), number_(number), shared_(shared), pass_(pass) {
    if (!method.balancer) return;
    mole::SignBiasBalancer::Options options = *method.balancer;
    with_bias([&](std::span<float> bias) { options.experts = mole::Index(bias.size()); });
    balancer_.emplace(options);
  }

  void forward(mole::View<const float> x, mole::View<float> y) {
    mole::Pass pass = pass_;
    pass.layer = number_;
    if (method_.before_forward) method_.before_forward({layer_, mole::Index(number_), shared_, x});
    layer_.forward(x, y, pass);
    if (watcher_) watcher_(layer_, x, pass);
  }

  /// Adds to d_x, unless it is empty, and to the gradients inside.
  void backward(mole::View<const float> x, mole::View<const float> d_y, mole::View<float> d_x) {
    if (method_.loss) method_.loss(layer_.trace());
    if (method_.before_backward) method_.before_backward({layer_, mole::Index(number_), shared_, x, d_x});
    if (balancer_) balancer_->observe(layer_.trace());
    layer_.backward(x, d_y, d_x);
  }

  void after_step(mole::Index step, mole::Index steps) {
    if (balancer_) with_bias([&](std::span<float> bias) { balancer_->update(bias); });
    if (method_.after_step) method_.after_step(layer_, step, steps);
  }

  /// f(name, span) for all that is no parameter and that the next step depends on.
  template <class F>
  void for_each_state(F&& f) {
    layer_.for_each_state(f);
    if (balancer_) mole::for_each_state_within("balancer", *balancer_, f);
  }

  mole::AnyLinear<float>& layer() { return layer_; }
  /// It may call the layer, except for a backward. An empty one watches no longer.
  void watch(Watcher watcher) { watcher_ = std::move(watcher); }

 private:
  /// Calls f(the balancing bias), wherever the method keeps it: in the router, in the score or in the selection.
  template <class F>
  void with_bias(F f) {
    layer_.for_each_state([&]<class T>(std::string_view name, std::span<T> numbers) {
      if constexpr (std::is_same_v<T, float>)
        if (name.ends_with(".bias")) f(numbers);
    });
  }

  const Method& method_;
  mole::AnyLinear<float> layer_;
  std::uint64_t number_;
  Shared* shared_;
  const mole::Pass& pass_;
  Watcher watcher_;
  std::optional<mole::SignBiasBalancer> balancer_;
};

}  // namespace training
