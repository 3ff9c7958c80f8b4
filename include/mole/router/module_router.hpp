// SPDX-License-Identifier: MIT
// ModuleRouter: gives every token the gate that its module has among those of a model.
#pragma once

#include "mole/router/module_gates.hpp"
#include "mole/router/router_policy.hpp"

#include <limits>
#include <memory>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logit = the gate of one module, the same for every token; -infinity, so nobody, if discretize() has dropped it.
///
///   logits [N x 1], for Gate{Identity{}, All{}, Raw{}}
///
/// There is nothing to train in a layer: training moves the gates, whose gradient is added to where the layer's
/// gradients point:
///
///     gradients.router.gates = &gate_gradients;   null, as gradients() makes it, are frozen gates
///
/// Layers that run backward at the same time need gate gradients of their own. Under a gate that was kept the layer is
/// that without gates, bit for bit, and under one that was dropped it is its base.
/// Throws Error(option) without gates, and for a layer or module that they do not have.
template <class T>
class ModuleRouter {
 public:
  using Scalar = T;
  static constexpr bool borrows = true;  // the gates

  /// None of its own.
  struct Parameters {
    typename ModuleGates<T>::Parameters* gates = nullptr;  ///< of gradients: those of the gates; null = frozen

    template <class F, class... P>
    static void for_each_tensor(F&&, P&...) {}
  };

  ModuleRouter(std::shared_ptr<const ModuleGates<T>> gates, Index layer, Index module)
      : gates_(std::move(gates)), layer_(layer), module_(module) {
    require(gates_ != nullptr, ErrorCode::option, "ModuleRouter: expected gates, found none");
    const auto& all = gates_->options();
    require(layer >= 0 && layer < all.layers && module >= 0 && module < all.modules, ErrorCode::option,
            "ModuleRouter: expected a layer below ", all.layers, " and a module below ", all.modules, ", found ", layer,
            " and ", module);
  }

  void check_sizes() const { gates_->check_sizes(); }
  void check_gradients(const Parameters& gradients) const {
    if (gradients.gates != nullptr) gates_->check_gradients(*gradients.gates, "ModuleRouter");
  }

  Index outputs() const { return 1; }
  const std::shared_ptr<const ModuleGates<T>>& gates() const { return gates_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  void forward(View<const T>, View<T> logits) const {
    const bool dropped = gates_->discrete() && !gates_->keeps(layer_, module_);
    fill(logits, dropped ? -std::numeric_limits<T>::infinity() : gates_->gate(layer_, module_));
  }

  /// The sum over tokens of d_logits, through the softmax of the module's row. In double: it may be of many tokens.
  void backward(View<const T>, View<const T> d_logits, View<T>, Parameters& gradients, auto) const {
    if (gradients.gates == nullptr) return;
    double sum = 0;
    for (Index n = 0; n < d_logits.rows(); ++n) sum += double(d_logits(n, 0));
    gates_->add_gradient(layer_, module_, T(sum), *gradients.gates);
  }

 private:
  std::shared_ptr<const ModuleGates<T>> gates_;
  Index layer_, module_;
  Parameters parameters_;
};

static_assert(TrainableRouterPolicy<ModuleRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
