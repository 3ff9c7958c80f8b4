// SPDX-License-Identifier: MIT
// require_coefficient(): checks the coefficient of a loss.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// Throws Error(option), naming `who`, unless the coefficient is 0 or of size 1e-30 to 1e30: gradients may be of float.
inline void require_coefficient(std::string_view who, double coefficient) {
  require(coefficient == 0 || in_float_range(coefficient), ErrorCode::option, who,
          ": expected a coefficient of 0, or of size 1e-30 to 1e30, found ", coefficient);
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
