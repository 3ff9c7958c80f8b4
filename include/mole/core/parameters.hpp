// SPDX-License-Identifier: MIT
// Parameters, gradients and moments are one type, walked in lockstep by name.
#pragma once

#include "mole/core/matrix.hpp"

#include <string_view>

namespace mole {

/// The parameters of a policy that has none.
///
/// A policy with parameters names a struct `Parameters` of Matrix members with one function
///     template <class F, class... P> static void walk(F&& f, P&... p)   calling   f("name", p.name...)
/// for each member, and offers `parameters()`, const and not. Its gradients are an object of the same type; an empty
/// matrix there is a frozen tensor: neither computed nor touched. Default construction makes every tensor empty.
struct NoParameters {
  template <class F, class... P>
  static void walk(F&&, P&...) {}
};

namespace detail {
template <class Policy>
struct ParametersOf {
  using type = NoParameters;
};
template <class Policy>
requires requires {
  typename Policy::Parameters;
}
struct ParametersOf<Policy> {
  using type = typename Policy::Parameters;
};
}  // namespace detail

template <class Policy>
using ParametersOf = typename detail::ParametersOf<Policy>::type;

/// The parameters of `policy`, or an object without any.
template <class Policy>
decltype(auto) parameters_of(Policy& policy) {
  if constexpr (requires { policy.parameters(); }) {
    return policy.parameters();
  } else {
    static NoParameters none;
    return (none);
  }
}

/// Tensors of the shapes of `parameters`, all zero: gradients to accumulate into.
template <class Parameters>
Parameters zeros_like(const Parameters& parameters) {
  Parameters zeros = parameters;
  Parameters::walk([](std::string_view, auto& tensor) { tensor.set_zero(); }, zeros);
  return zeros;
}

template <class Parameters>
void set_zero(Parameters& gradients) {
  Parameters::walk([](std::string_view, auto& tensor) { tensor.set_zero(); }, gradients);
}

/// False when every tensor is frozen.
template <class Parameters>
bool any_wanted(Parameters& gradients) {
  bool wanted = false;
  Parameters::walk([&](std::string_view, auto& tensor) { wanted = wanted || !tensor.empty(); }, gradients);
  return wanted;
}

}  // namespace mole
