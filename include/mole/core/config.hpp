// SPDX-License-Identifier: MIT
// Index, MOLE_ASSERT, panel_width: the index type, the precondition check and the width of weight panels.
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

/// Rows of a weight that a panel interleaves: 128 bytes, two of the widest vectors and two cache lines.
template <class T>
constexpr Index panel_width = Index(128 / sizeof(T));

}  // namespace mole
