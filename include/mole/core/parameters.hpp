// SPDX-License-Identifier: MIT
// ParametersOf, for_each_tensor_within(): parameters and gradients as one type, visited in lockstep by name.
#pragma once

#include "mole/core/error.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The parameters of a policy that has none.
///
/// A policy with parameters names a struct `Parameters` of Matrix members with one function
///     template <class F, class... P> static void for_each_tensor(F&& f, P&... p)
/// that calls f("name", p.name...) for each member, and offers `parameters()`, const and not. Its gradients are an
/// object of the same type; an empty matrix there is a frozen tensor: neither computed nor touched. A
/// default-constructed object has empty tensors only. A caller may assign matrices of any size there, so a policy whose
/// tensors must fit each other offers
///     void check_sizes() const   which throws Error(shape) unless they do
/// and one whose gradients point to those of somebody else
///     void check_gradients(const Parameters&) const   which throws Error(shape) unless these fit
struct NoParameters {
  template <class F, class... P>
  static void for_each_tensor(F&&, P&...) {}
};

namespace detail {
template <class Policy>
auto parameters_type() {
  if constexpr (requires { typename Policy::Parameters; })
    return std::type_identity<typename Policy::Parameters>();
  else
    return std::type_identity<NoParameters>();
}
}  // namespace detail

/// What a policy trains; NoParameters if it says nothing.
template <class Policy>
using ParametersOf = typename decltype(detail::parameters_type<Policy>())::type;

/// Does a policy refer to parameters of somebody else, whose sizes may change without its layer's knowledge? It says so
/// with `static constexpr bool borrows = true`, and its check_sizes() looks at them in every call.
template <class Policy>
constexpr bool borrows_parameters = requires {
  requires Policy::borrows;
};

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

namespace detail {
/// "prefix.name" when it is read, up to 120 characters without allocation: an optimizer visits all names in every step.
class QualifiedName {
 public:
  QualifiedName(std::string_view prefix, std::string_view name) : prefix_(prefix), name_(name) {}
  operator std::string_view() const {
    const std::size_t size = prefix_.size() + 1 + name_.size();
    if (size > near_.size()) far_.resize(size);
    char* const text = far_.empty() ? near_.data() : far_.data();
    char* const dot = std::copy(prefix_.begin(), prefix_.end(), text);
    *dot = '.';
    std::copy(name_.begin(), name_.end(), dot + 1);
    return {text, size};
  }

 private:
  std::string_view prefix_, name_;
  mutable std::array<char, 120> near_;
  mutable std::string far_;  // of longer names
};
}  // namespace detail

/// The tensors of one part in several `Parameters`, their names prefixed with that of the part: "router.weight".
template <class Parameters, class F, class... P>
void for_each_tensor_within(std::string_view part, F& f, P&... p) {
  Parameters::for_each_tensor(
      [&](std::string_view name, auto&... tensors) { f(detail::QualifiedName(part, name), tensors...); }, p...);
}

/// layer.for_each_tensor(f, others...) with names prefixed with that of the layer, "q.router.weight": so one optimizer
/// and one checkpoint hold several layers.
template <class Layer, class F, class... Others>
requires requires(Layer& layer, F& f, Others&... others) {
  layer.for_each_tensor(f, others...);
}
void for_each_tensor_within(std::string_view part, Layer& layer, F&& f, Others&... others) {
  layer.for_each_tensor(
      [&](std::string_view name, auto... tensors) { f(detail::QualifiedName(part, name), tensors...); }, others...);
}

namespace detail {
/// Throws Error(shape) if parameters of a part that was handed out for change have other sizes than it needs.
template <class Part>
void check_sizes(const Part& part) {
  if constexpr (requires { part.check_sizes(); }) part.check_sizes();
}
/// Throws Error(shape) if `gradients` point to some of another size than those of what the part borrows.
template <class Part>
void check_gradients(const Part& part, const ParametersOf<Part>& gradients) {
  if constexpr (requires { part.check_gradients(gradients); }) part.check_gradients(gradients);
}
}  // namespace detail

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

namespace detail {
/// Lets the numbers of the tensors that `own` has live in place(name, tensor); where that is empty, in memory of
/// theirs. Throws Error(option) for a tensor that is part of a larger one, before any has moved.
template <class Parameters, class Place, class Own>
void move_tensors(Place& place, Own& own) {
  Parameters::for_each_tensor(
      [](std::string_view name, auto& tensor) {
        require(
            tensor.empty() || requires { tensor.live_here(); }, ErrorCode::option,
            "expected tensors with memory of their own, found '", name, "', which is part of a larger one");
      },
      own);
  Parameters::for_each_tensor(
      [&place](std::string_view name, auto& tensor) {
        if constexpr (requires { tensor.live_here(); }) {
          if (tensor.empty()) return;
          if (const auto memory = place(name, tensor.view()))
            tensor.live_in(memory);
          else
            tensor.live_here();
        }
      },
      own);
}
}  // namespace detail

/// Tensors of the shapes of `parameters`, all zero: gradients to accumulate into.
template <class Parameters>
Parameters zeros_like(const Parameters& parameters) {
  Parameters zeros = parameters;
  Parameters::for_each_tensor([](std::string_view, auto& tensor) { tensor.set_zero(); }, zeros);
  return zeros;
}

/// Zero in all tensors that are wanted: gradients before a step.
template <class Parameters>
void set_zero(Parameters& gradients) {
  Parameters::for_each_tensor([](std::string_view, auto& tensor) { tensor.set_zero(); }, gradients);
}

/// False when every tensor is frozen.
template <class Parameters>
bool any_wanted(Parameters& gradients) {
  bool wanted = false;
  Parameters::for_each_tensor([&](std::string_view, auto& tensor) { wanted = wanted || !tensor.empty(); }, gradients);
  return wanted;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
