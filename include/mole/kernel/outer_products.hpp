// SPDX-License-Identifier: MIT
// OuterProducts: sums of outer products kept in registers: products over panels, ranks added to rows, rank gradients.
#pragma once

#include "mole/kernel/rows.hpp"
#include "mole/kernel/vector.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// c (+)= sum_k a_k b_k^T.
///
///   a_k: column k of the factors [rows x depth]   b_k: row k of b, `cols` numbers   c [rows x cols]
///
/// The types A, B and C say where their rows lie. With `padded` b, whole vectors may be read beyond its last column.
/// Each element is a chain of multiply-adds in the order of k, in whichever tile, so results do not depend on how rows
/// and columns are divided among calls.
///
/// The tile is two vectors of columns by up to 12 rows (6 with 16 registers), for accumulators, b, and one broadcast
/// factor. Fewer rows leave registers for more columns, and so for chains that hide each other's latency.
template <class Arch, class T>
struct OuterProducts {
  static constexpr Index step = step_of<Arch, T>;
  static constexpr Index most_rows = registers_of<Arch> == 32 ? 12 : 6;

  template <class A, class B, class C>
  void operator()(A a, B b, bool padded, Index depth, Index rows, Index cols, C c, bool accumulate) const;

 private:
  using Vector = kernel::Vector<Arch, T>;
  static constexpr Index few_rows = most_rows / 3;  // leave room for four vectors of columns

  /// One tile of c: its columns and operands.
  template <class A, class B, class C>
  struct Tile {
    A a;
    B b;
    C c;
    Index depth;
    bool accumulate;
    Index column, last;  // its first column; columns of its last vector
  };

  template <Index Vectors, class Operands>
  static void columns(Operands& tile, Index rows, Index cols);
  template <class Operands>
  static void last_columns(Operands& tile, Index rows, Index cols, bool padded);
  template <Index Vectors, class Operands, Index... M>
  static void rows_of(const Operands& tile, Index row, Index rows, std::integer_sequence<Index, M...>);
  template <Index M, Index Vectors, bool Whole, class Operands>
  static void compute(const Operands& tile, Index row);
};

template <class Arch, class T>
template <class A, class B, class C>
void OuterProducts<Arch, T>::operator()(A a, B b, bool padded, Index depth, Index rows, Index cols, C c,
                                        bool accumulate) const {
  Tile<A, B, C> tile{a, b, c, depth, accumulate, 0, step};
  if (rows == 1) columns<8>(tile, rows, cols);
  if (rows <= few_rows) columns<4>(tile, rows, cols);
  columns<2>(tile, rows, cols);
  last_columns(tile, rows, cols, padded);
}

/// As many columns as whole tiles of so many vectors cover.
template <class Arch, class T>
template <Index Vectors, class Operands>
void OuterProducts<Arch, T>::columns(Operands& tile, Index rows, Index cols) {
  constexpr Index most = Vectors == 8 ? 1 : Vectors == 4 ? few_rows : most_rows;
  constexpr auto sizes = std::make_integer_sequence<Index, most>{};
  for (; tile.column + Vectors * step <= cols; tile.column += Vectors * step) {
    Index row = 0;
    for (; rows - row >= 2 * most; row += most) compute<most, Vectors, true>(tile, row);
    // The rest in halves: 8 + 8 rows keep more chains in flight than 12 + 4.
    const Index rest = rows - row, first = rest > most ? (rest + 1) / 2 : rest;
    rows_of<Vectors>(tile, row, first, sizes);
    rows_of<Vectors>(tile, row + first, rest - first, sizes);
  }
}

/// compute<rows> for a number known at run time.
template <class Arch, class T>
template <Index Vectors, class Operands, Index... M>
void OuterProducts<Arch, T>::rows_of(const Operands& tile, Index row, Index rows, std::integer_sequence<Index, M...>) {
  ((rows == M + 1 ? compute<M + 1, Vectors, true>(tile, row) : void()), ...);
}

/// The rest: single vectors, and the columns beyond them.
template <class Arch, class T>
template <class Operands>
void OuterProducts<Arch, T>::last_columns(Operands& tile, Index rows, Index cols, bool padded) {
  for (; tile.column < cols; tile.column += step) {
    tile.last = std::min(step, cols - tile.column);
    const bool whole = padded || tile.last == step;
    Index row = 0;
    for (; whole && row + most_rows <= rows; row += most_rows) compute<most_rows, 1, true>(tile, row);
    for (; row + 4 <= rows; row += 4) whole ? compute<4, 1, true>(tile, row) : compute<4, 1, false>(tile, row);
    for (; row < rows; ++row) whole ? compute<1, 1, true>(tile, row) : compute<1, 1, false>(tile, row);
  }
}

/// One tile of M rows from `row` on. Unless Whole, the last vector of b may not be read beyond its columns.
template <class Arch, class T>
template <Index M, Index Vectors, bool Whole, class Operands>
void OuterProducts<Arch, T>::compute(const Operands& tile, Index row) {
  constexpr Index count = M * Vectors;
  Vector sums[std::size_t(count)];
  const auto c = tile.c;  // a copy: what is stored to c cannot change it
  const Index column = tile.column, last = tile.last;
  T* to[std::size_t(M)];
  MOLE_UNROLL for (Index i = 0; i < M; ++i) to[i] = c(row + i) + column;
  const auto at = [&](Index s) MOLE_INLINE { return to[s / Vectors] + s % Vectors * step; };
  const bool full = Vectors > 1 || last == step;
  if (!tile.accumulate) {
    MOLE_UNROLL for (Index s = 0; s < count; ++s) sums[s] = Vector(T(0));
  } else {
    MOLE_UNROLL for (Index s = 0; s < count; ++s) {
      sums[s] = full ? Vector::load_unaligned(at(s)) : load_first<Arch>(at(s), last);
    }
  }

  const auto a = tile.a.template from<M>(row);
  const auto b = tile.b.from(tile.column);
  const auto sweep = [&](auto ask) MOLE_INLINE {
    MOLE_NO_UNROLL for (Index k = 0; k < tile.depth; ++k) {
      Vector b_k[std::size_t(Vectors)];
      MOLE_UNROLL for (Index v = 0; v < Vectors; ++v) {
        const T* const from = b.at(k, v * step);
        b_k[v] = in_register(Whole ? Vector::load_unaligned(from) : load_first<Arch>(from, last));
      }
      ask();
      MOLE_UNROLL for (Index s = 0; s < count; ++s) {
        sums[s] = multiply_add(Vector(a.at(s / Vectors, k)), b_k[s % Vectors], sums[s]);
      }
    }
  };
  // Separate loops: a condition inside costs registers, and half of the speed.
  if constexpr (requires { tile.b.alone(M); }) {
    if (Vectors == 2 && tile.b.alone(M) && tile.b.from_memory())
      sweep([ahead = tile.b.next_page(tile.column)]() mutable { ahead.both(); });
    else if (Vectors == 2 && tile.b.alone(M))
      sweep([ahead = tile.b.next_page(tile.column)]() mutable { ahead.near(); });
    else
      sweep([ahead = tile.b.next_panel(tile.column, row, M, tile.depth)]() mutable { ahead.far(); });
  } else {
    sweep([] {});
  }

  MOLE_UNROLL for (Index s = 0; s < count; ++s) {
    if (full)
      sums[s].store_unaligned(at(s));
    else
      store_first<Arch>(sums[s], at(s), last);
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
