// SPDX-License-Identifier: MIT
// RowSums: a weighted sum of a few rows added to one row: what a token's own ranks add to its result.
#pragma once

#include "mole/kernel/vector.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// c += sum_k factor_k row_k.   c, row_k [cols], factor, rows [count]
///
/// Each element is a chain of multiply-adds in the order of k, as OuterProducts computes it. Eight rows at a time, so
/// that their factors and addresses stay in registers: 8 of 32 rows of 768 floats take 0.15 us, with a tile of
/// OuterProducts 0.23.
template <class Arch, class T>
struct RowSums {
  void operator()(const T* factor, const T* const* rows, Index count, Index cols, T* c) const;

 private:
  using Vector = kernel::Vector<Arch, T>;
  static constexpr Index step = step_of<Arch, T>;
  static constexpr Index together = registers_of<Arch> == 32 ? 8 : 4;

  template <Index K>
  static void add(const T* factor, const T* const* rows, Index cols, T* c);
};

template <class Arch, class T>
void RowSums<Arch, T>::operator()(const T* factor, const T* const* rows, Index count, Index cols, T* c) const {
  Index k = 0;
  for (; k + together <= count; k += together) add<together>(factor + k, rows + k, cols, c);
  if constexpr (together == 8)
    if (k + 4 <= count) add<4>(factor + k, rows + k, cols, c), k += 4;
  if (k + 2 <= count) add<2>(factor + k, rows + k, cols, c), k += 2;
  if (k < count) add<1>(factor + k, rows + k, cols, c);
}

template <class Arch, class T>
template <Index K>
void RowSums<Arch, T>::add(const T* factor, const T* const* rows, Index cols, T* c) {
  constexpr Index vectors = 4;
  Vector factors[std::size_t(K)];
  const T* row[std::size_t(K)];
  for (Index k = 0; k < K; ++k) factors[k] = Vector(factor[k]), row[k] = rows[k];
  Index j = 0;
  for (; j + vectors * step <= cols; j += vectors * step) {
    Vector sums[std::size_t(vectors)];
    for (Index v = 0; v < vectors; ++v) sums[v] = Vector::load_unaligned(c + j + v * step);
    for (Index k = 0; k < K; ++k)
      for (Index v = 0; v < vectors; ++v)
        sums[v] = multiply_add(factors[k], Vector::load_unaligned(row[k] + j + v * step), sums[v]);
    for (Index v = 0; v < vectors; ++v) sums[v].store_unaligned(c + j + v * step);
  }
  for (; j < cols; j += step) {
    const Index last = std::min(step, cols - j);
    Vector sum = last == step ? Vector::load_unaligned(c + j) : load_first<Arch>(c + j, last);
    for (Index k = 0; k < K; ++k)
      sum = multiply_add(factors[k],
                         last == step ? Vector::load_unaligned(row[k] + j) : load_first<Arch>(row[k] + j, last), sum);
    if (last == step)
      sum.store_unaligned(c + j);
    else
      store_first<Arch>(sum, c + j, last);
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
