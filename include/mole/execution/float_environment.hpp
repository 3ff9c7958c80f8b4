// SPDX-License-Identifier: MIT
// FloatEnvironment: how a thread rounds, and whether it flushes small numbers to zero.
#pragma once

#include <cstdint>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "mole/core/macros_off.hpp"

namespace mole {

/// The control of the floating-point unit that vectors use: MXCSR on x86, FPCR on AArch64. Elsewhere, nothing.
struct FloatEnvironment {
  std::uint64_t control = 0;

  /// That of the calling thread.  A few cycles, where the whole environment of `<cfenv>` takes a hundred.
  static FloatEnvironment current() {
#if defined(__SSE__)
    return {_mm_getcsr() & ~0x3fu};  // without the flags of past exceptions
#elif defined(__aarch64__) && defined(__GNUC__)
    std::uint64_t control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return {control};
#else
    return {};
#endif
  }
  void apply() const {
#if defined(__SSE__)
    _mm_setcsr(unsigned(control));
#elif defined(__aarch64__) && defined(__GNUC__)
    asm volatile("msr fpcr, %0" ::"r"(control));
#endif
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
