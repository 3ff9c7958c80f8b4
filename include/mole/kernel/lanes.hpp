// SPDX-License-Identifier: MIT
// Lanes: several rows at once, one per lane of a vector.
#pragma once

#include "mole/kernel/vector.hpp"

#include <algorithm>
#include <cstring>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// Moves up to `step` rows of a matrix into the lanes of vectors, and back: lane r of vector c is element (r, c).
template <class Arch, class T>
struct Lanes {
  using Vector = kernel::Vector<Arch, T>;
  static constexpr Index step = step_of<Arch, T>;

  /// Lanes without a row repeat the last one.   from [rows x cols], rows >= 1, to [cols]
  static void gather(const T* from, Index stride, Index rows, Index cols, Vector* to);
  /// to[r][c] = T(lane r of from[c]), for any number type of `to`.
  template <class U>
  static void scatter(const Vector* from, Index rows, Index cols, U* to, Index stride);
};

template <class Arch, class T>
void Lanes<Arch, T>::gather(const T* from, Index stride, Index rows, Index cols, Vector* to) {
  MOLE_ASSERT(rows >= 1 && rows <= step);
  const T* row[std::size_t(step)];
  for (Index r = 0; r < step; ++r) row[r] = from + std::min(r, rows - 1) * stride;
  // Written directly into the result: loading a vector whose numbers have just been stored one by one would stall.
  // Squares of registers (transpose) were not measurably faster at E = 64.
  auto* bytes = reinterpret_cast<unsigned char*>(to);
  for (Index c = 0; c < cols; ++c)
    MOLE_UNROLL for (Index r = 0; r < step; ++r, bytes += sizeof(T)) std::memcpy(bytes, row[r] + c, sizeof(T));
}

template <class Arch, class T>
template <class U>
void Lanes<Arch, T>::scatter(const Vector* from, Index rows, Index cols, U* to, Index stride) {
  alignas(64) T lanes[std::size_t(step)];
  for (Index c = 0; c < cols; ++c) {
    from[c].store_aligned(lanes);
    for (Index r = 0; r < rows; ++r) to[r * stride + c] = U(lanes[r]);
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
