// SPDX-License-Identifier: MIT
// DefaultExecution: the execution of a layer that names none.
#pragma once

#include "mole/execution/simd.hpp"

namespace mole {

/// The widest instruction set that the compiler's flags allow, on the caller's thread.
using DefaultExecution = Simd<>;

}  // namespace mole
