// SPDX-License-Identifier: MIT
// prepare(), project() ...: the optional functions of factors, and what they are for factors without them.
#pragma once

#include "mole/factors/factor_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// Computes A and B, unless they are stored.
template <FactorPolicy Factors>
void prepare(const Factors& factors, auto call) {
  if constexpr (ComputedFactorPolicy<Factors>) factors.prepare(call);
}

/// From d_a and d_b to gradients, unless they are gradients themselves.
template <FactorPolicy Factors>
void contract(const Factors& factors, ParametersOf<Factors>& gradients, auto call) {
  if constexpr (ComputedFactorPolicy<Factors>) factors.contract(gradients, call);
}

/// z = x A^T, after prepare().   x [N x I], z [N x ranks]
template <FactorPolicy Factors, class T = typename Factors::Scalar>
void project(const Factors& factors, View<const T> x, View<T> z, auto call) {
  if constexpr (StreamedFactorPolicy<Factors>)
    factors.project(x, z, call);
  else
    call.execution.product_nt(x, factors.factors(call.scratch).a, z);
}

/// d_x += d_z A
template <FactorPolicy Factors, class T = typename Factors::Scalar>
void project_backward(const Factors& factors, View<const T> d_z, View<T> d_x, auto call) {
  if constexpr (StreamedFactorPolicy<Factors>)
    factors.project_backward(d_z, d_x, call);
  else
    call.execution.product_nn(d_z, factors.factors(call.scratch).a, d_x);
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
