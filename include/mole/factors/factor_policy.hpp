// SPDX-License-Identifier: MIT
// The contract of factors: where A and B come from.
#pragma once

#include "mole/core/blocks.hpp"
#include "mole/core/call.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/scaling.hpp"

#include <concepts>

namespace mole {

/// One pair of factors.   a [ranks x I], b [ranks x O], row i of each together one rank-1 expert
template <class T>
struct FactorViews {
  View<T> a, b;
};

/// Satisfied by a copyable type with `Scalar`, `Options` (which hold `alpha`, `scaling` and `dropout` for the experts)
/// and
///     in(), out(), blocks()
///     factors(scratch)                     A and B, made in `scratch` where they are not simply there
///     gradient_views(gradients, scratch)   where to add d_a and d_b; empty = frozen
///     contract(gradients, scratch)         from d_a and d_b to the gradients of its own parameters
template <class F>
concept FactorPolicy = std::copyable<F> && std::floating_point<typename F::Scalar> &&
    requires(const F& factors, ScratchOf<F>& scratch, ParametersOf<F>& gradients, const typename F::Options& options) {
  { factors.in() } -> std::convertible_to<Index>;
  { factors.out() } -> std::convertible_to<Index>;
  { factors.blocks() } -> std::convertible_to<const Blocks&>;
  { factors.factors(scratch) } -> std::same_as<FactorViews<const typename F::Scalar>>;
  { factors.gradient_views(gradients, scratch) } -> std::same_as<FactorViews<typename F::Scalar>>;
  factors.contract(gradients, scratch);
  options.alpha, options.scaling, options.dropout;
};

}  // namespace mole
