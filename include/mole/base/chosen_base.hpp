// SPDX-License-Identifier: MIT
// ChosenBase: one of several linear bases, chosen when the program runs.
#pragma once

#include "mole/base/base_policy.hpp"

#include <concepts>
#include <type_traits>
#include <utility>
#include <variant>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = what the base inside gives, which is one of `Bases`. A program that lets its user choose between a borrowed
/// weight and a packed one compiles each layer once instead of once for each base:
///
///     using Base = ChosenBase<DenseBase<View<const float>>, PackedBase<float>>;
///     auto layer = mola({}, packed ? Base(PackedBase(weight)) : Base(DenseBase(weight)), rng);
///
/// The bits of a layer are those that it has on the base itself. Frozen.  A branch or two per call.
template <LinearBasePolicy First, LinearBasePolicy... Others>
requires(std::same_as<typename First::Scalar, typename Others::Scalar>&&...)  //
    class ChosenBase {
 public:
  using Scalar = typename First::Scalar;
  using T = Scalar;

  template <class Base>
  requires(std::same_as<Base, First> || (std::same_as<Base, Others> || ...)) ChosenBase(Base base)
      : base_(std::move(base)) {}

  Index in() const {
    return std::visit([](const auto& base) { return Index(base.in()); }, base_);
  }
  Index out() const {
    return std::visit([](const auto& base) { return Index(base.out()); }, base_);
  }
  LinearWeights<T> weights() const {
    return std::visit([](const auto& base) { return base.weights(); }, base_);
  }
  /// The base inside if it is a Base, else null.
  template <class Base>
  const Base* target() const {
    return std::get_if<Base>(&base_);
  }

  void forward(View<const T> x, View<T> y, auto call) const { call.execution.linear(x, weights(), y); }

  /// d_x += d_y W
  void backward(View<const T>, View<const T> d_y, View<T> d_x, NoParameters&, auto call) const {
    if (d_x) call.execution.linear_backward(d_y, weights(), d_x);
  }

 private:
  std::variant<First, Others...> base_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
