// SPDX-License-Identifier: MIT
// NoRouter: the router of a layer that has nothing to decide.
#pragma once

#include "mole/router/router_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = 0. With one expert, or with the selection All and the weighing Unit, the layer is a plain LoRA.
template <class T>
class NoRouter {
 public:
  using Scalar = T;

  explicit NoRouter(Index experts = 1) : experts_(experts) {}

  Index outputs() const { return experts_; }

  void forward(View<const T>, View<T> logits) const { fill(logits, T(0)); }
  void backward(View<const T>, View<const T>, View<T>, NoParameters&, auto) const {}

 private:
  Index experts_;
};

static_assert(TrainableRouterPolicy<NoRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
