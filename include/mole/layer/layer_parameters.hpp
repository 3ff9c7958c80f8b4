// SPDX-License-Identifier: MIT
// The parameters, or the gradients, of a whole layer.
#pragma once

#include "mole/core/parameters.hpp"

#include <string_view>

namespace mole {

/// Which parts of a layer learn. A part that does not has empty gradients: neither computed nor touched.
struct TrainableParts {
  bool router = true;
  bool experts = true;
  bool base = false;
};

/// The tensors of the three roles that can have any, named "router.weight", "experts.lora_A", "base.weight" and so on.
template <class Router, class Experts, class Base>
struct LayerParameters {
  ParametersOf<Router> router;
  ParametersOf<Experts> experts;
  ParametersOf<Base> base;

  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    for_each_tensor_within<ParametersOf<Router>>("router", f, p.router...);
    for_each_tensor_within<ParametersOf<Experts>>("experts", f, p.experts...);
    for_each_tensor_within<ParametersOf<Base>>("base", f, p.base...);
  }
};

}  // namespace mole
