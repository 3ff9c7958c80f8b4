// SPDX-License-Identifier: MIT
// What every header may rely on: the index type and the precondition check.
#pragma once

#include <cassert>
#include <cstddef>

/// Checks a precondition on a hot path. A host may define its own before including any header of mole; the default is
/// the standard assert, so release builds pay nothing.
#ifndef MOLE_ASSERT
#define MOLE_ASSERT(condition) assert(condition)
#endif

namespace mole {

/// Every size, index and stride: signed, so that differences and reversed loops are safe.
using Index = std::ptrdiff_t;

}  // namespace mole
