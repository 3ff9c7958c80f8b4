// SPDX-License-Identifier: MIT
// Pair: two vectors of floats as one.
#pragma once

#include "mole/kernel/architecture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// Two vectors, the unit in which codes are read.
template <class Arch>
struct Pair {
  static constexpr Index size = 2 * step_of<Arch, float>;

  Vector<Arch, float> first, second;

  static Pair load(const float* from) {
    return {Vector<Arch, float>::load_unaligned(from), Vector<Arch, float>::load_unaligned(from + size / 2)};
  }
  void store(float* to) const {
    first.store_unaligned(to);
    second.store_unaligned(to + size / 2);
  }
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
