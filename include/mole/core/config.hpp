// SPDX-License-Identifier: MIT
// Index, MOLE_ASSERT, MOLE_INLINE, MOLE_COLD, MOLE_UNROLL, MOLE_NO_UNROLL, panel_width: what every header may need.
#pragma once

#if __cplusplus < 202002L && !(defined(_MSVC_LANG) && _MSVC_LANG >= 202002L)
#error "mole needs C++20: compile with -std=c++20, or link the CMake target mole::mole, which asks for it"
#include <mole_needs_a_newer_standard>  // there is no such file, so that nothing of the thousand errors that would follow is shown
#endif
#if !__has_include(<memory_resource>)
#error "mole needs <memory_resource>: libstdc++, or libc++ from 16 on"
#include <mole_needs_memory_resource>
#endif
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error \
    "mole: -ffast-math and -Ofast make comparisons with NaN and infinity, and so routing, silently wrong: add -fno-fast-math behind them for the files that include mole"
#include <mole_needs_no_fast_math>
#endif

#include <cassert>
#include <cstddef>

#include "mole/core/macros_off.hpp"

/// Checks a precondition on a hot path. A host may define its own before including any header of mole; the default is
/// the standard assert, so release builds pay nothing.
#ifndef MOLE_ASSERT
#define MOLE_ASSERT(condition) assert(condition)
#endif

/// Inlines a function, or a lambda, wherever it is called: kernels whose sums must stay in registers.
#if defined(__GNUC__)
#define MOLE_INLINE __attribute__((always_inline))
#else
#define MOLE_INLINE
#endif
/// Keeps a function out of line.
#if defined(__GNUC__)
#define MOLE_NOINLINE __attribute__((noinline))
#else
#define MOLE_NOINLINE
#endif
/// Keeps what is rarely called, and large, out of the functions that call it.
#if defined(__GNUC__)
#define MOLE_COLD __attribute__((noinline, cold))
#else
#define MOLE_COLD
#endif
/// Before a loop over vectors whose number is a constant, to write it out: what a loop indexes stays in memory. Of
/// nested loops g++ 12 writes the inner one out early and the outer one too late for that, so use one loop over both.
#if defined(__clang__)
#define MOLE_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define MOLE_UNROLL _Pragma("GCC unroll 64")
#else
#define MOLE_UNROLL
#endif
/// Before the loop over the terms of sums that fill the registers: clang 14 writes eight turns out and loads ahead of
/// all of them, and with 16 registers keeps the sums in memory, at half the speed.
#if defined(__clang__)
#define MOLE_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define MOLE_NO_UNROLL
#endif

namespace mole {

/// Every size, index and stride: signed, so that differences and reversed loops are safe.
using Index = std::ptrdiff_t;

/// Rows of a weight that a panel interleaves: 128 bytes, two of the widest vectors and two cache lines.
template <class T>
constexpr Index panel_width = Index(128 / sizeof(T));

namespace detail {
/// p + distance, where null, the memory of an empty matrix, stays null: a distance from it is undefined behavior.
template <class T>
MOLE_INLINE inline constexpr T* moved(T* p, Index distance) {
  return p == nullptr ? p : p + distance;
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
