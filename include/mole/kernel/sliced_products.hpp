// SPDX-License-Identifier: MIT
// SlicedProducts: products of tokens with a sparse matrix: FlyLoRA's down-projection and, transposed, its d_x.
#pragma once

#include "mole/kernel/sliced_rows.hpp"
#include "mole/kernel/transpose.hpp"
#include "mole/kernel/vector.hpp"

#include <array>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// Whether the instruction set has a look_up() of elements of two vectors.
template <class Arch, class T>
constexpr bool can_look_up = requires(const Vector<Arch, T>& table, const int* index) {
  look_up(table, table, index, Tag<Arch>());
};

/// out (+)= x a^T.   x [tokens x cols], a [rows x cols] sparse, out [tokens x rows]
///
/// Each element is a chain of multiply-adds in the order of the columns, whatever tokens are computed together.
/// A non-finite x may reach every row of a, as it would through the zeros of a dense one.
///
/// If the instruction set can look up elements in registers (AVX-512), rows are in lanes: two blocks of x are the
/// table, and a slot takes one look_up() and one multiply-add. Else tokens are in lanes, and blocks of x are transposed
/// on the stack. For 32 rows of 768 with a quarter of nonzeros, us per token at 8 and at 512 tokens:
///
///   AVX-512   look_up() 0.23 and 0.23, dense product 0.59 and 0.32; tried: tokens in lanes 0.62 and 0.25, gathers 1.3
///   AVX2      tokens in lanes 0.94 and 0.50, dense product 0.80 and 0.62
template <class Arch, class T>
struct SlicedProducts {
  void operator()(const SlicedRows<T>& a, const T* x, Index x_stride, Index tokens, T* out, Index out_stride,
                  bool accumulate) const;

 private:
  using Vector = kernel::Vector<Arch, T>;
  static constexpr Index step = step_of<Arch, T>;
  static constexpr Index lanes = SlicedRows<T>::lanes;

  /// Rows of tokens, and their results.
  struct Tokens {
    const T* x;
    Index x_stride;
    T* out;
    Index out_stride;
    bool accumulate;

    Tokens from(Index n) const { return {x + n * x_stride, x_stride, out + n * out_stride, out_stride, accumulate}; }
  };

  template <Index M>
  static void rows_in_lanes(const SlicedRows<T>& a, const Tokens& tokens);
  static Vector block(const T* row, Index column, Index cols);

  template <Index V>
  static void tokens_in_lanes(const SlicedRows<T>& a, const Tokens& tokens, Index count);
  template <Index V>
  static void add_stride(const int* column, const T* value, Index slots, const T* table, T* sums);
};

template <class Arch, class T>
void SlicedProducts<Arch, T>::operator()(const SlicedRows<T>& a, const T* x, Index x_stride, Index tokens, T* out,
                                         Index out_stride, bool accumulate) const {
  const Tokens all{x, x_stride, out, out_stride, accumulate};
  Index n = 0;
  if constexpr (can_look_up<Arch, T>) {
    for (; n + 8 <= tokens; n += 8) rows_in_lanes<8>(a, all.from(n));
    for (; n + 4 <= tokens; n += 4) rows_in_lanes<4>(a, all.from(n));
    for (; n + 2 <= tokens; n += 2) rows_in_lanes<2>(a, all.from(n));
    for (; n < tokens; ++n) rows_in_lanes<1>(a, all.from(n));
  } else {
    for (; n + 2 * step <= tokens; n += 4 * step) tokens_in_lanes<4>(a, all.from(n), std::min(4 * step, tokens - n));
    for (; n < tokens; n += step) tokens_in_lanes<1>(a, all.from(n), std::min(step, tokens - n));
  }
}

/// M tokens share each load of a.
template <class Arch, class T>
template <Index M>
void SlicedProducts<Arch, T>::rows_in_lanes(const SlicedRows<T>& a, const Tokens& tokens) {
  const int* count = a.count();
  const int* column = a.column();
  const T* value = a.value();
  for (Index row = 0; row < a.rows(); row += lanes) {
    const Index last = std::min(lanes, a.rows() - row);
    Vector sums[std::size_t(M)], even[std::size_t(M)], odd[std::size_t(M)];
    for (Index m = 0; m < M; ++m) {
      sums[m] = tokens.accumulate ? load_first<Arch>(tokens.out + m * tokens.out_stride + row, last) : Vector(T(0));
      even[m] = block(tokens.x + m * tokens.x_stride, 0, a.cols());
    }
    // look_up() uses only the last bits of a column, so even and odd blocks keep their registers.
    const auto stride = [&](Index w, Vector* next) MOLE_INLINE {
      for (Index m = 0; m < M; ++m) next[m] = block(tokens.x + m * tokens.x_stride, (w + 1) * lanes, a.cols());
      for (int slot = *count++; slot > 0; --slot, column += lanes, value += lanes)
        for (Index m = 0; m < M; ++m)
          sums[m] = multiply_add(Vector::load_unaligned(value), look_up(even[m], odd[m], column, Tag<Arch>()), sums[m]);
    };
    for (Index w = 0; w < a.strides(); w += 2) {
      stride(w, odd);
      if (w + 1 < a.strides()) stride(w + 1, even);
    }
    for (Index m = 0; m < M; ++m) store_first<Arch>(sums[m], tokens.out + m * tokens.out_stride + row, last);
  }
}

/// `lanes` numbers of a row from `column` on; zeros beyond its end.
template <class Arch, class T>
auto SlicedProducts<Arch, T>::block(const T* row, Index column, Index cols) -> Vector {
  if (column + lanes <= cols) return Vector::load_unaligned(row + column);
  return column < cols ? load_first<Arch>(row + column, cols - column) : Vector(T(0));
}

/// Up to V vectors of tokens; lanes without a token compute with zeros. A few slices share the transposed blocks:
/// transposing for each slice takes half of all time. Transposing eight blocks at once, for longer chains, gained
/// nothing.
template <class Arch, class T>
template <Index V>
void SlicedProducts<Arch, T>::tokens_in_lanes(const SlicedRows<T>& a, const Tokens& tokens, Index count) {
  constexpr Index width = V * step, together = 4;
  alignas(64) T table[std::size_t(2 * lanes * width)] = {};
  alignas(64) T sums[std::size_t(together * lanes * width)];
  const auto turn_block = [&](Index block) {
    const Index column = block * lanes, cols = std::min(lanes, a.cols() - column);
    if (cols > 0)
      Transpose<Arch, T>{}(tokens.x + column, tokens.x_stride, count, cols, table + block % 2 * lanes * width, width);
  };
  for (Index row = 0; row < a.rows(); row += together * lanes) {
    const Index slice = row / lanes, last = std::min(together * lanes, a.rows() - row);
    std::fill_n(sums, together * lanes * width, T(0));
    if (tokens.accumulate) Transpose<Arch, T>{}(tokens.out + row, tokens.out_stride, count, last, sums, width);
    std::array<Index, std::size_t(together)> first{};
    for (Index s = 0; s * lanes < last; ++s) first[std::size_t(s)] = a.first_slot(slice + s) * lanes;
    turn_block(0);
    for (Index w = 0; w < a.strides(); ++w) {
      turn_block(w + 1);
      for (Index s = 0; s * lanes < last; ++s) {
        const Index slots = a.count()[(slice + s) * a.strides() + w];
        Index& at = first[std::size_t(s)];
        add_stride<V>(a.column() + at, a.value() + at, slots, table, sums + s * lanes * width);
        at += slots * lanes;
      }
    }
    Transpose<Arch, T>{}(sums, width, last, count, tokens.out + row, tokens.out_stride);
  }
}

/// sums [lanes][V vectors] += the slots of one stride;   table [two blocks of lanes][V vectors]
template <class Arch, class T>
template <Index V>
void SlicedProducts<Arch, T>::add_stride(const int* column, const T* value, Index slots, const T* table, T* sums) {
  for (Index lane = 0; lane < lanes; ++lane, sums += V * step) {
    Vector sum[std::size_t(V)];
    for (Index v = 0; v < V; ++v) sum[v] = Vector::load_aligned(sums + v * step);
    for (Index at = lane; at < slots * lanes; at += lanes) {
      const Vector factor(value[at]);
      const T* const x = table + Index(column[at] & int(2 * lanes - 1)) * (V * step);
      for (Index v = 0; v < V; ++v) sum[v] = multiply_add(factor, Vector::load_aligned(x + v * step), sum[v]);
    }
    for (Index v = 0; v < V; ++v) sum[v].store_aligned(sums + v * step);
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
