// SPDX-License-Identifier: MIT
// LargestInLanes: the k largest numbers of each lane.
#pragma once

#include "mole/kernel/vector.hpp"

#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// The k largest numbers in each lane of x, with their positions, in order: larger first, the earlier of equal ones
/// first. Without branches, so that the time does not depend on the numbers.
///
///   x [size], no NaN   ->   largest, position [k]        1 <= k <= size, k <= most
///
/// Positions are numbers of type T: exact up to size 2^24.  O(size k) vector operations, in registers up to k = 8,
/// in memory from k = 17 on.
template <class Arch, class T>
struct LargestInLanes {
  using Vector = kernel::Vector<Arch, T>;
  static constexpr Index most = step_of<Arch, T> >= 8 ? 64 : 16;  // beyond, sorting per token is cheaper

  void operator()(const Vector* x, Index size, Index k, Vector* largest, Vector* position) const;

 private:
  template <std::size_t K>
  static void keep(const Vector* x, Index size, Index k, Vector* largest, Vector* position);
  static void keep_many(const Vector* x, Index size, Index k, Vector* largest, Vector* position);
};

template <class Arch, class T>
void LargestInLanes<Arch, T>::operator()(const Vector* x, Index size, Index k, Vector* largest,
                                         Vector* position) const {
  MOLE_ASSERT(k >= 1 && k <= size && k <= most);
  if (k == 1) return keep<1>(x, size, k, largest, position);
  if (k == 2) return keep<2>(x, size, k, largest, position);
  if (k <= 4) return keep<4>(x, size, k, largest, position);
  if (k <= 8) return keep<8>(x, size, k, largest, position);
  if (k <= 16) return keep<16>(x, size, k, largest, position);
  keep_many(x, size, k, largest, position);
}

template <class Arch, class T>
template <std::size_t K>
void LargestInLanes<Arch, T>::keep(const Vector* x, Index size, Index k, Vector* largest, Vector* position) {
  // Sorted insertion of every number. NaN marks an empty place: no number is <= NaN.
  Vector value[K], at[K];
  for (std::size_t j = 0; j < K; ++j) {
    value[j] = std::numeric_limits<T>::quiet_NaN();
    at[j] = T(0);
  }
  for (Index i = 0; i < size; ++i) {
    const Vector here = T(i);
    auto stays = x[i] <= value[K - 1];
    for (std::size_t j = K - 1; j > 0; --j) {
      const auto above_stays = x[i] <= value[j - 1];  // else it moves down to j
      value[j] = select(above_stays, select(stays, value[j], x[i]), value[j - 1]);
      at[j] = select(above_stays, select(stays, at[j], here), at[j - 1]);
      stays = above_stays;
    }
    value[0] = select(stays, value[0], x[i]);
    at[0] = select(stays, at[0], here);
  }
  for (Index j = 0; j < k; ++j) largest[j] = value[j], position[j] = at[j];
}

/// The same, from the last occupied place on.
template <class Arch, class T>
void LargestInLanes<Arch, T>::keep_many(const Vector* x, Index size, Index k, Vector* largest, Vector* position) {
  for (Index i = 0; i < size; ++i) {
    const Vector here = T(i);
    Index j = i < k ? i : k - 1;
    if (i < k) {
      largest[j] = std::numeric_limits<T>::quiet_NaN();
      position[j] = T(0);
    }
    Vector value = largest[j], at = position[j];
    auto stays = x[i] <= value;
    for (; j > 0; --j) {
      const Vector value_above = largest[j - 1], at_above = position[j - 1];
      const auto above_stays = x[i] <= value_above;
      largest[j] = select(above_stays, select(stays, value, x[i]), value_above);
      position[j] = select(above_stays, select(stays, at, here), at_above);
      stays = above_stays, value = value_above, at = at_above;
    }
    largest[0] = select(stays, value, x[i]);
    position[0] = select(stays, at, here);
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
