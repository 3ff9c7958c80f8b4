// SPDX-License-Identifier: MIT
// StridedRows, GatheredRows, PanelRows, Factors: where the rows of an operand lie.
#pragma once

#include "mole/kernel/vector.hpp"

#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// Rows at a fixed distance: row k begins at data + k * stride.
template <class T>
struct StridedRows {
  T* data;
  Index stride;

  T* operator()(Index k) const { return data + k * stride; }
  StridedRows shifted(Index columns) const { return {mole::detail::moved(data, columns), stride}; }

  /// Row k from a column on: at(k, j) is `j` columns further.
  struct From {
    T* data;
    Index stride;
    T* at(Index k, Index j) const { return data + k * stride + j; }
  };
  From from(Index column) const { return {mole::detail::moved(data, column), stride}; }
};

/// Rows at arbitrary addresses.
template <class T>
struct GatheredRows {
  T* const* rows;
  Index column = 0;

  T* operator()(Index k) const { return rows[k] + column; }
  GatheredRows shifted(Index columns) const { return {rows, column + columns}; }

  struct From {
    T* const* rows;
    Index column;
    T* at(Index k, Index j) const { return rows[k] + column + j; }
  };
  From from(Index further) const { return {rows, column + further}; }
};

/// Rows in panels `stride` elements apart; in a panel, row k begins `width` numbers after row k - 1. The `sharers` of a
/// panel prefetch the next one while they read this one.
template <class T>
struct PanelRows {
  static constexpr Index width = panel_width<std::remove_const_t<T>>;
  T* data;
  Index stride;
  Index sharers;

  struct From {
    T* data;
    Index stride;
    /// A tile begins at a multiple of its own width, so j alone tells whether it reaches into the next panel.
    T* at(Index k, Index j) const { return data + j / width * stride + k * width + j % width; }
  };
  From from(Index column) const { return {data + column / width * stride + column % width, stride}; }

  /// Prefetches data for later, one step further at each k.
  struct Ahead {
    const char* at;
    Index step;
    void near() {
      prefetch_near(at);
      prefetch_near(at + 64);
      at += step;
    }
    void far() {
      prefetch(at);
      at += step;
    }
    void both() {
      prefetch(at + 8192);
      prefetch(at + 8192 + 64);
      near();
    }
  };
  /// A tile that has the panel for itself prefetches the page after what it reads: 0.88 instead of 0.68 of the roofline
  /// at 8 rows of width 768. Weights larger than the caches are prefetched further ahead, too: 13.5 instead of 10.7
  /// GB/s at width 4096.
  bool alone(Index rows) const { return rows == sharers; }
  bool from_memory() const { return stride * Index(sizeof(T)) > 256 * 1024; }
  Ahead next_page(Index column) const {
    return {reinterpret_cast<const char*>(data + column / width * stride) + 4096, line};
  }
  /// Tiles that share a panel prefetch a part of the next one each: 0.85 instead of 0.62 at 64 rows of 2048.
  Ahead next_panel(Index column, Index row, Index rows, Index depth) const {
    const T* const next = data + (column / width + 1) * stride;
    return {reinterpret_cast<const char*>(next) + row * (line * depth / sharers), rows * line / sharers};
  }

 private:
  static constexpr Index line = Index(sizeof(T)) * width;
};

/// A matrix of factors: element (i, k) is data[i * row_step + k * k_step].
template <class T>
struct Factors {
  const T* data;
  Index row_step, k_step;

  Factors shifted(Index k) const { return {mole::detail::moved(data, k * k_step), row_step, k_step}; }

  /// M rows from `row` on, with one pointer per three rows: one per row would not fit the registers.
  template <Index M>
  struct From {
    const T* rows[std::size_t(M + 2) / 3];
    Index row_step, k_step;
    const T& at(Index i, Index k) const { return rows[i / 3][i % 3 * row_step + k * k_step]; }
  };
  template <Index M>
  From<M> from(Index row) const {
    From<M> from{{}, row_step, k_step};
    for (Index i = 0; i < M; i += 3) from.rows[i / 3] = mole::detail::moved(data, (row + i) * row_step);
    return from;
  }
};

/// A matrix of factors with columns at arbitrary addresses: element (i, k) is columns[k][i].
template <class T>
struct FactorColumns {
  const T* const* columns;

  template <Index M>
  struct From {
    const T* const* columns;
    Index row;
    const T& at(Index i, Index k) const { return (columns[k] + row)[i]; }
  };
  template <Index M>
  From<M> from(Index row) const {
    return {columns, row};
  }
};

/// A matrix of factors with rows at arbitrary addresses: element (i, k) is rows[i][first + k].
template <class T>
struct GatheredFactors {
  const T* const* rows;
  Index first = 0;

  GatheredFactors shifted(Index k) const { return {rows, first + k}; }

  template <Index M>
  struct From {
    const T* rows[std::size_t(M)];
    const T& at(Index i, Index k) const { return rows[i][k]; }
  };
  template <Index M>
  From<M> from(Index row) const {
    From<M> from;
    for (Index i = 0; i < M; ++i) from.rows[i] = rows[row + i] + first;
    return from;
  }
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
