// SPDX-License-Identifier: MIT
// DefaultExecution: the execution of a layer that names none.
#pragma once

#include "mole/execution/simd.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The widest instruction set that the compiler's flags allow, on the caller's thread.
using DefaultExecution = Simd<>;

}  // namespace mole

#include "mole/core/macros_on.hpp"
