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
  static void walk(F&& f, P&... p) {
    walk_within<ParametersOf<Router>>("router", f, p.router...);
    walk_within<ParametersOf<Experts>>("experts", f, p.experts...);
    walk_within<ParametersOf<Base>>("base", f, p.base...);
  }
};

}  // namespace mole
