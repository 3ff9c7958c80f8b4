// SPDX-License-Identifier: MIT
// detail::add_scaled(), detail::dot(): plain loops over rows, in forms that compilers turn into vectors.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <array>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

// Out of line: inlined into larger loops they are not always made of vectors (g++ 12: three times as slow).

/// to_i += factor * from_i
template <class T>
MOLE_NOINLINE void add_scaled(std::type_identity_t<T> factor, const T* from, T* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] += factor * from[i];
}

/// The scalar product, in eight sums.
template <class T>
MOLE_NOINLINE T dot(const T* one, const T* two, Index count) {
  constexpr Index lanes = 8;
  std::array<T, lanes> sums{};
  Index i = 0;
  for (; i + lanes <= count; i += lanes)
    for (Index lane = 0; lane < lanes; ++lane) sums[std::size_t(lane)] += one[i + lane] * two[i + lane];
  T sum = 0;
  for (; i < count; ++i) sum += one[i] * two[i];
  for (T part : sums) sum += part;
  return sum;
}

/// Is a row nothing but zeros? The gradient of an expert that nobody chose is, and what that expert holds, NaN even,
/// must not meet it.
template <class T>
bool is_zero(const T* row, Index count) {
  return std::all_of(row, row + count, [](T number) { return number == 0; });
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
