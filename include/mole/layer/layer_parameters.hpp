// SPDX-License-Identifier: MIT
// ExpertParameters, LayerParameters: the parameters, or the gradients, of a whole layer.
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

/// The tensors of an ExpertLinear, named "experts.lora_A", "base.weight" and so on.
template <class Experts, class Base>
struct ExpertParameters {
  ParametersOf<Experts> experts;
  ParametersOf<Base> base;

  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    for_each_tensor_within<ParametersOf<Experts>>("experts", f, p.experts...);
    for_each_tensor_within<ParametersOf<Base>>("base", f, p.base...);
  }
};

/// The tensors of a MixtureLinear: "router.weight" and so on, then those of its ExpertLinear.
template <class Router, class Experts, class Base>
struct LayerParameters : ExpertParameters<Experts, Base> {
  ParametersOf<Router> router;

  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    for_each_tensor_within<ParametersOf<Router>>("router", f, p.router...);
    ExpertParameters<Experts, Base>::for_each_tensor(f, p...);
  }
};

namespace detail {
/// f(name, parameter, other...) with views, for the tensors that `own` has.
template <class Parameters, class F, class Own, class... Others>
void for_each_view(F& f, Own& own, Others&... others) {
  Parameters::for_each_tensor(
      [&f](std::string_view name, auto& parameter, auto&... rest) {
        if (!parameter.empty()) f(name, parameter.view(), rest.view()...);
      },
      own, others...);
}
}  // namespace detail

}  // namespace mole
