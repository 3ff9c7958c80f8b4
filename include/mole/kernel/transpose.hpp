// SPDX-License-Identifier: MIT
// Transpose: transposes a matrix, one square of registers at a time.
#pragma once

#include "mole/kernel/vector.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// Whether the instruction set has a transpose() of squares of registers.
template <class Arch, class T>
constexpr bool can_transpose = requires(Vector<Arch, T>* rows) {
  transpose(rows, Tag<Arch>());
};

/// to[c][r] = from[r][c].   from [rows x cols], rows `stride` apart; rows of `to` are to_stride apart
template <class Arch, class T>
struct Transpose {
  void operator()(const T* from, Index stride, Index rows, Index cols, T* to, Index to_stride) const;

 private:
  static constexpr Index step = step_of<Arch, T>;
  static void element_by_element(const T* from, Index stride, Index rows, Index cols, T* to, Index to_stride);
};

template <class Arch, class T>
void Transpose<Arch, T>::operator()(const T* from, Index stride, Index rows, Index cols, T* to, Index to_stride) const {
  Index r = 0;
  if constexpr (can_transpose<Arch, T>)
    for (; r + step <= rows; r += step) {
      Index c = 0;
      for (; c + step <= cols; c += step) {
        Vector<Arch, T> square[std::size_t(step)];
        for (Index i = 0; i < step; ++i) square[i] = Vector<Arch, T>::load_unaligned(from + (r + i) * stride + c);
        transpose(square, Tag<Arch>());
        for (Index i = 0; i < step; ++i) square[i].store_unaligned(to + (c + i) * to_stride + r);
      }
      element_by_element(from + r * stride + c, stride, step, cols - c, to + c * to_stride + r, to_stride);
    }
  element_by_element(from + r * stride, stride, rows - r, cols, to + r, to_stride);
}

template <class Arch, class T>
void Transpose<Arch, T>::element_by_element(const T* from, Index stride, Index rows, Index cols, T* to,
                                            Index to_stride) {
  for (Index c = 0; c < cols; ++c)
    for (Index r = 0; r < rows; ++r) to[c * to_stride + r] = from[r * stride + c];
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
