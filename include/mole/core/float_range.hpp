// SPDX-License-Identifier: MIT
// in_float_range(): can policies of float compute with an option?
#pragma once

#include "mole/core/macros_off.hpp"

namespace mole {

/// Is the size of an option from 1e-30 to 1e30, where it and its inverse are ordinary numbers of float? False for NaN.
/// Options beyond become 0 or infinity in a layer of float; checks refuse them.
constexpr bool in_float_range(double option) {
  const double size = option < 0 ? -option : option;
  return size >= 1e-30 && size <= 1e30;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
