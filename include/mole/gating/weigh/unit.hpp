// SPDX-License-Identifier: MIT
// Unit: gates of 1.
#pragma once

#include "mole/gating/weigh/weigh_policy.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate = 1 for every chosen expert, so the router gets no gradient from the output and learns from auxiliary losses.
/// Source: Chen et al. 2024 (LLaVA-MoLE), arXiv:2401.16160, eq. 5.
struct Unit {
  double constant_gate() const { return 1; }
  double lone_gate() const { return 1; }

  template <class T>
  void forward(std::span<const T>, std::span<const int>, std::span<T> gates) const {
    std::fill(gates.begin(), gates.end(), T(1));
  }

  template <class T>
  void backward(std::span<const T>, std::span<const int>, std::span<const T>, std::span<const T>, std::span<T>) const {}
};

template <>
inline constexpr bool weigh_has_gradient<Unit> = false;

static_assert(WeighPolicy<Unit, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
