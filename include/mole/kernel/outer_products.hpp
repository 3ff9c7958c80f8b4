// SPDX-License-Identifier: MIT
// A sum of outer products held in registers: matrix products over a panel, and gradients of ranks.
#pragma once

#include "mole/kernel/simd.hpp"

namespace mole::kernel {

/// Rows at a fixed distance: row k begins at data + k * stride.
template <class T>
struct StridedRows {
  const T* data;
  Index stride;
  const T* operator()(Index k) const { return data + k * stride; }
};

/// Rows anywhere.
template <class T>
struct GatheredRows {
  const T* const* rows;
  const T* operator()(Index k) const { return rows[k]; }
};

/// c (+)= sum_k a_k b_k^T.
///
///   a_k: `rows` numbers a_step apart   b_k: `cols` numbers side by side   c [rows x cols], c_stride apart
///
/// k runs over [0, depth); A and B say where a_k and b_k begin. With `padded` b, whole vectors may be read behind
/// the last column. Each element is a chain of multiply-adds in the order of k, whatever tile it falls into, so results
/// do not depend on how rows and columns are split among calls.
template <class Arch, class T>
struct OuterProducts {
  static constexpr Index step = step_of<Arch, T>;
  /// Columns of the widest tile, and the natural width of a panel.
  static constexpr Index width = 2 * step;

  template <class A, class B>
  void operator()(A a, Index a_step, B b, bool padded, Index depth, Index rows, Index cols, T* c, Index c_stride,
                  bool accumulate) const;

 private:
  using Batch = kernel::Batch<Arch, T>;
  // Two vectors of columns leave room for 12 rows in 32 registers, for 6 in 16: accumulators, b, and one broadcast a.
  static constexpr Index most_rows = registers_of<Arch> == 32 ? 12 : 6;

  struct Tile {
    Index a_step, depth;
    T* c;
    Index c_stride;
    bool accumulate;
  };

  template <Index Vectors, class A, class B>
  static void columns(const A& a, const B& b, Index rows, Index last, bool padded, Tile tile);
  template <Index M, Index Vectors, class A, class B>
  static void compute(const A& a, Index row, const B& b, Index last, bool padded, const Tile& tile);
};

template <class Arch, class T>
template <class A, class B>
void OuterProducts<Arch, T>::operator()(A a, Index a_step, B b, bool padded, Index depth, Index rows, Index cols, T* c,
                                        Index c_stride, bool accumulate) const {
  const auto from = [&](Index column) { return [b, column](Index k) { return b(k) + column; }; };
  Index j = 0;
  for (; j + width <= cols; j += width)
    columns<2>(a, from(j), rows, step, padded, {a_step, depth, c + j, c_stride, accumulate});
  for (; j < cols; j += step)
    columns<1>(a, from(j), rows, std::min(step, cols - j), padded, {a_step, depth, c + j, c_stride, accumulate});
}

template <class Arch, class T>
template <Index Vectors, class A, class B>
void OuterProducts<Arch, T>::columns(const A& a, const B& b, Index rows, Index last, bool padded, Tile tile) {
  Index i = 0;
  for (; i + most_rows <= rows; i += most_rows) compute<most_rows, Vectors>(a, i, b, last, padded, tile);
  for (; i + 4 <= rows; i += 4) compute<4, Vectors>(a, i, b, last, padded, tile);
  for (; i < rows; ++i) compute<1, Vectors>(a, i, b, last, padded, tile);
}

/// One tile of M rows from `row` on; its last vector has `last` columns.
template <class Arch, class T>
template <Index M, Index Vectors, class A, class B>
void OuterProducts<Arch, T>::compute(const A& a, Index row, const B& b, Index last, bool padded, const Tile& tile) {
  Batch sums[std::size_t(M)][std::size_t(Vectors)];
  T* const c = tile.c + row * tile.c_stride;
  const bool whole = last == step;
  const auto load = [&](const T* from, bool readable) {
    return readable ? Batch::load_unaligned(from) : load_first<Arch>(from, last);
  };
  for (Index i = 0; i < M; ++i)
    for (Index v = 0; v < Vectors; ++v)
      sums[i][v] = tile.accumulate ? load(c + i * tile.c_stride + v * step, whole) : Batch(T(0));

  const auto sweep = [&](auto load_b) {
    for (Index k = 0; k < tile.depth; ++k) {
      const T* const a_k = a(k) + row * tile.a_step;
      const T* const b_k = b(k);
      Batch b_vectors[std::size_t(Vectors)];
      for (Index v = 0; v < Vectors; ++v) b_vectors[v] = load_b(b_k + v * step);
      for (Index i = 0; i < M; ++i) {
        const Batch factor(a_k[i * tile.a_step]);
        for (Index v = 0; v < Vectors; ++v) sums[i][v] = multiply_add(factor, b_vectors[v], sums[i][v]);
      }
    }
  };
  if (whole || padded)
    sweep([](const T* from) { return Batch::load_unaligned(from); });
  else
    sweep([last](const T* from) { return load_first<Arch>(from, last); });

  for (Index i = 0; i < M; ++i)
    for (Index v = 0; v < Vectors; ++v) {
      T* const to = c + i * tile.c_stride + v * step;
      if (whole)
        sums[i][v].store_unaligned(to);
      else
        store_first<Arch>(sums[i][v], to, last);
    }
}

}  // namespace mole::kernel
