// SPDX-License-Identifier: MIT
// A weighted sum of rows added to one row: up-projections and gradients of a token.
#pragma once

#include "mole/kernel/simd.hpp"

namespace mole::kernel {

/// y += sum_j factor[j] row_j.
///
///   factor [count], rows: `count` pointers to rows of `length`, y [length]
///
/// y is read and written once; each element sums in the order of j.
template <class Arch, class T>
struct RowSum {
  void operator()(const T* factor, const T* const* rows, Index count, T* y, Index length) const;

 private:
  using Batch = kernel::Batch<Arch, T>;
  static constexpr Index step = step_of<Arch, T>;

  template <Index Vectors>
  static void columns(const T* factor, const T* const* rows, Index count, T* y, Index begin);
};

template <class Arch, class T>
void RowSum<Arch, T>::operator()(const T* factor, const T* const* rows, Index count, T* y, Index length) const {
  Index k = 0;
  for (; k + 8 * step <= length; k += 8 * step) columns<8>(factor, rows, count, y, k);
  for (; k + step <= length; k += step) columns<1>(factor, rows, count, y, k);
  if (k == length) return;
  Batch sum = load_first<Arch>(y + k, length - k);
  for (Index j = 0; j < count; ++j)
    sum = multiply_add(Batch(factor[j]), load_first<Arch>(rows[j] + k, length - k), sum);
  store_first<Arch>(sum, y + k, length - k);
}

template <class Arch, class T>
template <Index Vectors>
void RowSum<Arch, T>::columns(const T* factor, const T* const* rows, Index count, T* y, Index begin) {
  Batch sums[std::size_t(Vectors)];
  for (Index v = 0; v < Vectors; ++v) sums[v] = Batch::load_unaligned(y + begin + v * step);
  for (Index j = 0; j < count; ++j) {
    const Batch f(factor[j]);
    const T* row = rows[j] + begin;
    for (Index v = 0; v < Vectors; ++v) sums[v] = multiply_add(f, Batch::load_unaligned(row + v * step), sums[v]);
  }
  for (Index v = 0; v < Vectors; ++v) sums[v].store_unaligned(y + begin + v * step);
}

}  // namespace mole::kernel
