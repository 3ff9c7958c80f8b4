// SPDX-License-Identifier: MIT
// DotProducts: dot products of a few long rows with a few others: down-projections, router logits, small vectors.
#pragma once

#include "mole/kernel/vector.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// out[i][j] = <x_i, w_j>.
///
///   x: m pointers to rows of `length`   w: n rows of `length`, w_stride apart   out: m pointers to rows of n
///
/// Both operands are read along their rows, so neither is packed. Each product is summed in the same order for all m
/// and n. The tile is four rows of w by up to six of x (three with 16 registers), for accumulators, x, and one row of w
/// at a time.
template <class Arch, class T>
struct DotProducts {
  void operator()(const T* const* x, Index m, const T* w, Index w_stride, Index n, Index length, T* const* out) const;

 private:
  using Vector = kernel::Vector<Arch, T>;
  static constexpr Index step = step_of<Arch, T>;
  static constexpr Index most_rows = registers_of<Arch> == 32 ? 6 : 3;

  template <Index... M>
  static void rows_of(const T* const* x, Index count, const T* w, Index w_stride, Index n, Index length, T* const* out,
                      std::integer_sequence<Index, M...>);
  template <Index M>
  static void rows(const T* const* x, const T* w, Index w_stride, Index n, Index length, T* const* out);
  template <Index M, Index N>
  static void tile(const T* const* x, const T* w, Index w_stride, Index length, T* const* out, Index column);
};

template <class Arch, class T>
void DotProducts<Arch, T>::operator()(const T* const* x, Index m, const T* w, Index w_stride, Index n, Index length,
                                      T* const* out) const {
  // Even tiles: 4 + 4 rows keep more sums in flight than 6 + 2.
  for (Index i = 0, count; i < m; i += count) {
    const Index tiles = (m - i + most_rows - 1) / most_rows;
    count = (m - i + tiles - 1) / tiles;
    rows_of(x + i, count, w, w_stride, n, length, out + i, std::make_integer_sequence<Index, most_rows>{});
  }
}

/// rows<count> for a number known at run time.
template <class Arch, class T>
template <Index... M>
void DotProducts<Arch, T>::rows_of(const T* const* x, Index count, const T* w, Index w_stride, Index n, Index length,
                                   T* const* out, std::integer_sequence<Index, M...>) {
  ((count == M + 1 ? rows<M + 1>(x, w, w_stride, n, length, out) : void()), ...);
}

template <class Arch, class T>
template <Index M>
void DotProducts<Arch, T>::rows(const T* const* x, const T* w, Index w_stride, Index n, Index length, T* const* out) {
  Index j = 0;
  if constexpr (M == 1)  // two times four chains hide the latency of one
    for (; j + 8 <= n; j += 8) tile<M, 8>(x, w + j * w_stride, w_stride, length, out, j);
  for (; j + 4 <= n; j += 4) tile<M, 4>(x, w + j * w_stride, w_stride, length, out, j);
  for (; j < n; ++j) tile<M, 1>(x, w + j * w_stride, w_stride, length, out, j);
}

template <class Arch, class T>
template <Index M, Index N>
void DotProducts<Arch, T>::tile(const T* const* x, const T* w, Index w_stride, Index length, T* const* out,
                                Index column) {
  constexpr Index count = M * N;
  Vector sums[std::size_t(count)];
  MOLE_UNROLL for (Index s = 0; s < count; ++s) sums[s] = Vector(T(0));
  const auto accumulate = [&](auto load) MOLE_INLINE {
    Vector a[std::size_t(M)];
    MOLE_UNROLL for (Index i = 0; i < M; ++i) a[i] = in_register(load(x[i]));
    MOLE_UNROLL for (Index s = 0; s < count; ++s) {
      const Index i = s % M, j = s / M;
      sums[i * N + j] = multiply_add(a[i], load(w + j * w_stride), sums[i * N + j]);
    }
  };
  Index k = 0;
  for (; k + step <= length; k += step) accumulate([k](const T* row) { return Vector::load_unaligned(row + k); });
  if (k < length) accumulate([k, length](const T* row) { return load_first<Arch>(row + k, length - k); });
  MOLE_UNROLL for (Index i = 0; i < M; ++i) store_sums<N>(sums + i * N, out[i] + column);
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
