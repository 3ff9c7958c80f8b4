// SPDX-License-Identifier: MIT
// ExpertParameters, LayerParameters: the parameters, or the gradients, of a whole layer.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/parameters.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

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
bool is_gradient_of(const auto& parameter, const auto& gradient) {
  return (parameter.rows() == gradient.rows() && parameter.cols() == gradient.cols()) || gradient.empty();
}

/// Throws Error(shape) unless every tensor of `gradients` is empty or has the shape of the policy's parameter, and what
/// they point to fits.
template <class Policy>
void require_gradients_of(const Policy& policy, const ParametersOf<Policy>& gradients, const char* part) {
  using Parameters = ParametersOf<Policy>;
  const auto& parameters = parameters_of(policy);
  bool fit = true;
  Parameters::for_each_tensor([&](const auto&, const auto& parameter,
                                  const auto& gradient) { fit = fit && is_gradient_of(parameter.view(), gradient); },
                              parameters, gradients);
  if (fit) return check_gradients(policy, gradients);
  Parameters::for_each_tensor(
      [&](std::string_view name, const auto& parameter, const auto& gradient) {
        const auto p = parameter.view();
        require(is_gradient_of(p, gradient), ErrorCode::shape, "backward: expected a gradient of ", part, ".", name,
                " of [", p.rows(), " x ", p.cols(), "], or an empty one, found [", gradient.rows(), " x ",
                gradient.cols(), "]");
      },
      parameters, gradients);
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
