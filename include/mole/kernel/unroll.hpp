// SPDX-License-Identifier: MIT
// unroll(): a loop over registers, written out.
#pragma once

#include "mole/core/config.hpp"

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// f(0), ..., f(count - 1), each with a constant, all inlined. Sums that a loop or a call of a lambda indexes may be
/// kept in memory: by g++ 12 in a loop over eight, by clang 14 in one over six or more, which made products with
/// AVX-512 take 2 to 8 times as long. Mark `f` with MOLE_INLINE.
template <Index count, class F>
MOLE_INLINE inline void unroll(F f) {
  [&]<Index... i>(std::integer_sequence<Index, i...>) MOLE_INLINE {
    (f(std::integral_constant<Index, i>()), ...);
  }
  (std::make_integer_sequence<Index, count>());
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
