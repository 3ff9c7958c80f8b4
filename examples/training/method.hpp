// SPDX-License-Identifier: MIT
// Method: one way to adapt every linear layer of a frozen model.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/core/random.hpp"
#include "mole/layer/any_linear.hpp"
#include "mole/optim/sign_bias_balancer.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace training {

/// Where a layer stands in the host, and what it adapts.
struct Site {
  mole::View<const float> weight;     // [O x I], frozen and borrowed
  mole::View<const float> bias = {};  // [1 x O], likewise, or none
  mole::Index block = 0;              // of the host's `blocks`, bottom first
  mole::Index blocks = 1;
  mole::Index max_tokens = 0;
  mole::Index domains = 1;  // of the text

  mole::Index in() const { return weight.cols(); }
  mole::Index out() const { return weight.rows(); }
  auto base() const { return mole::DenseBase{weight, bias}; }
};

/// Parameters of one layer that a token touches: `always`, and for each pair of its routing, or each open gate.
struct Touched {
  mole::Index always = 0, each = 0;
};

/// Parameters that belong to no layer, as several share them. They are trained once.
class Shared {
 public:
  virtual ~Shared() = default;
  /// f(name, parameter, gradient)
  virtual void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) = 0;
  virtual void zero_gradients() = 0;
  /// f(name, span) for what else the next step depends on.
  virtual void for_each_state(const std::function<void(std::string_view, std::span<std::uint8_t>)>&) {}
  /// After the step `step` = 0, 1, ... of `steps`.
  virtual void after_step(mole::Index, mole::Index) {}
};

/// One call of a layer, for hooks that need more of it than its trace.
struct LayerCall {
  mole::AnyLinear<float>& layer;
  mole::Index number;          // of the layer, in the order of the calls
  Shared* shared;              // null where the method has none
  mole::View<const float> x;   // [N x I]
  mole::View<float> d_x = {};  // [N x I], accumulated; empty in forward, and where it is not wanted
};

/// A method is a layer, and what is done to it besides its forward and backward.
///
///   a step:  before_forward - forward - loss - before_backward - balancer observes - backward
///            - clip - AdamW - balancer updates - after_step
///
/// What is empty is not done. The hooks keep no state of their own: they are functions of the layer and the step, so
/// that a run may stop between two steps. The one thing that does count, the balancer, belongs to each layer.
struct Method {
  using Layer = mole::AnyLinear<float>;

  std::string name;             // on the command line and in file names
  std::string title;            // in tables
  double learning_rate = 0;     // tuned for this method: see the README for how
  double beta2 = 0.999;         // of AdamW
  bool routed = false;          // has a router worth a picture
  bool domain_experts = false;  // the expert of a token is the domain of its text, as in enforced routing

  std::function<Layer(const Site&, mole::Rng&)> build = {};
  std::function<Touched(const Site&)> touched = {};

  /// Where layers share parameters: made for all sites, before the layers. Then build_shared() stands for build().
  std::function<std::unique_ptr<Shared>(const std::vector<Site>&, mole::Rng&)> share = {};
  std::function<Layer(const Site&, Shared&, mole::Rng&)> build_shared = {};

  /// Names the parameters that choose among the others (the upper of two problems): in the first half of the steps the
  /// two learn in turns, each from batches of its own; after it, the others alone.
  std::function<bool(std::string_view name)> chooses = {};

  /// Hands over to the router what the trace has no place for.
  std::function<void(const LayerCall&)> before_forward = {};
  /// Adds the gradients of the method's own losses.
  std::function<void(mole::Trace<float>&)> loss = {};
  /// The same for losses of more than the trace.
  std::function<void(const LayerCall&)> before_backward = {};
  /// Balances without a loss; `experts` is filled in for each layer.
  std::optional<mole::SignBiasBalancer::Options> balancer = {};
  /// After the optimizer's step `step` = 0, 1, ... of `steps`.
  std::function<void(Layer&, mole::Index step, mole::Index steps)> after_step = {};
  /// Between two tasks that arrive one after the other. `weight` is what the layer computes with: it may be written.
  std::function<void(Layer&, const Site&, mole::View<float> weight, mole::Rng&)> next_task = {};
};

}  // namespace training
