// SPDX-License-Identifier: MIT
// CodedProducts: products with a weight in reduced storage, in both directions, never decoding it as a whole.
#pragma once

#include "mole/kernel/coded_rows.hpp"
#include "mole/kernel/outer_products.hpp"
#include "mole/kernel/transpose.hpp"
#include "mole/kernel/unroll.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// y = x W^T and d_x += d_y W for a weight W [rows x cols] that models CodedRows; arithmetic in float.
///
/// Both compute a range of outputs for all tokens, so that a caller can divide the outputs among threads, and no
/// element depends on the division. For few tokens the codes are decoded in registers, each vector once per tile of
/// tokens; from `many_tokens` on they are decoded into a panel on the stack (32 KiB, and 4 KiB to transpose it), which
/// all tokens share. nn adds in the same order either way; nt in one order below `many_tokens` and in another from
/// there on.
template <class Arch>
struct CodedProducts {
  static constexpr Index width = Pair<Arch>::size;
  static constexpr Index many_tokens = 48;

  /// y_n[o] = <x_n, w_o> for o in [first, first + rows).   x: `tokens` rows of w.cols   y: `tokens` rows
  template <class Weight>
  void nt(StridedRows<const float> x, Index tokens, const Weight& w, Index first, Index rows,
          StridedRows<float> y) const;

  /// d_x_n[i] += sum over o of d_y_n[o] w_o[i] for i in [first, first + cols), first a multiple of `width`, and o in
  /// [0, rows).   d_y, d_x: `tokens` rows
  template <class Weight>
  void nn(StridedRows<const float> d_y, Index tokens, const Weight& w, Index rows, Index first, Index cols,
          StridedRows<float> d_x) const;

 private:
  using Vector = kernel::Vector<Arch, float>;
  static constexpr bool many_registers = registers_of<Arch> == 32;
  // Tokens of the largest tile of nt and nn.
  static constexpr Index nt_tokens = many_registers ? 4 : 2, nn_tokens = many_registers ? 8 : 4;
  static constexpr Index nt_group = 4;  // rows of a tile: enough sums in flight to hide the latency of additions
  static constexpr Index nn_panel_tokens = 24;  // a panel needs no transposing here, so it pays earlier
  static constexpr Index nn_rows = 8;           // between reading and writing a vector of d_x

  static constexpr Index depth = Index(32768 / sizeof(float)) / width;
  using Panel = float[std::size_t(depth * width)];

  template <class Weight>
  static Pair<Arch> in_order_of(const Pair<Arch>& pair) {
    if constexpr (Weight::interleaved)
      return deinterleave(pair);
    else
      return pair;
  }
  template <class Weight>
  static Pair<Arch> in_order_of_memory(const Pair<Arch>& pair) {
    if constexpr (Weight::interleaved)
      return interleave(pair);
    else
      return pair;
  }
  static Pair<Arch> load_first(const float* from, Index count) {
    alignas(64) float elements[std::size_t(width)] = {};
    std::copy_n(from, count, elements);
    return Pair<Arch>::load(elements);
  }
  /// Prefetches the code of element i, so many bytes further on.
  template <class Row>
  static void ask_ahead(const Row& row, Index i, Index bytes) {
    prefetch(static_cast<const char*>(row.address(i)) + bytes);
  }
  template <class Row>
  static Pair<Arch> load_weight(const Row& row, Index i, Index count) {
    return count == width ? row.template load<Arch>(i) : row.template load_first<Arch>(i, count);
  }

  template <Index M, class Weight>
  static void nt_rows(StridedRows<const float> x, Index n, const Weight& w, Index first, Index rows,
                      StridedRows<float> y);
  template <Index M, Index N, class Weight>
  static void nt_tile(StridedRows<const float> x, Index n, const Weight& w, Index first, Index column,
                      StridedRows<float> y);
  template <class Weight>
  static void nt_panels(StridedRows<const float> x, Index tokens, const Weight& w, Index first, Index rows,
                        StridedRows<float> y);
  template <class Weight>
  static void pack_transposed(Panel& panel, const Weight& w, Index row, Index rows, Index column, Index cols);

  template <Index Rows, class Weight>
  static void nn_tokens_of(StridedRows<const float> d_y, Index tokens, const Weight& w, Index o, Index first,
                           Index cols, StridedRows<float> d_x);
  template <Index M, Index Rows, class Weight>
  static void nn_tile(StridedRows<const float> d_y, Index n, const Weight& w, Index o, Index first, Index cols,
                      StridedRows<float> d_x);
  template <class Weight>
  static void nn_panels(StridedRows<const float> d_y, Index tokens, const Weight& w, Index rows, Index first,
                        Index cols, StridedRows<float> d_x);
};

template <class Arch>
template <class Weight>
void CodedProducts<Arch>::nt(StridedRows<const float> x, Index tokens, const Weight& w, Index first, Index rows,
                             StridedRows<float> y) const {
  static_assert(CodedRows<Weight, Arch>);
  if (tokens >= many_tokens && w.cols > 0) return nt_panels(x, tokens, w, first, rows, y);
  // A block of rows stays in L1 while all tiles of tokens use it.
  constexpr Index block = 8;
  for (Index r = 0; r < rows; r += block) {
    const Index count = std::min(block, rows - r);
    const StridedRows<float> to{y.data + r, y.stride};
    Index n = 0;
    for (; n + nt_tokens <= tokens; n += nt_tokens) nt_rows<nt_tokens>(x, n, w, first + r, count, to);
    for (; n + 2 <= tokens; n += 2) nt_rows<2>(x, n, w, first + r, count, to);
    for (; n < tokens; ++n) nt_rows<1>(x, n, w, first + r, count, to);
  }
}

template <class Arch>
template <Index M, class Weight>
void CodedProducts<Arch>::nt_rows(StridedRows<const float> x, Index n, const Weight& w, Index first, Index rows,
                                  StridedRows<float> y) {
  Index r = 0;
  for (; r + nt_group <= rows; r += nt_group) nt_tile<M, nt_group>(x, n, w, first + r, r, y);
  for (; r < rows; ++r) nt_tile<M, 1>(x, n, w, first + r, r, y);
}

/// y_n[column ...] for tokens n ... n + M - 1 and rows first ... first + N - 1.
template <class Arch>
template <Index M, Index N, class Weight>
void CodedProducts<Arch>::nt_tile(StridedRows<const float> x, Index n, const Weight& w, Index first, Index column,
                                  StridedRows<float> y) {
  Vector sums[std::size_t(M * N)];
  MOLE_UNROLL for (Vector& element : sums) element = Vector(0.0f);
  decltype(w.row(0)) rows[std::size_t(N)];
  MOLE_UNROLL for (Index j = 0; j < N; ++j) rows[j] = w.row(first + j);
  const Index ahead = N * w.bytes();
  const auto accumulate = [&](auto load_x, auto load_w) MOLE_INLINE {
    Pair<Arch> in[std::size_t(M)];
    MOLE_UNROLL for (Index i = 0; i < M; ++i) in[i] = in_register(in_order_of<Weight>(load_x(x(n + i))));
    unroll<N>([&](auto j) MOLE_INLINE {
      const Pair<Arch> weight = load_w(rows[j]);
      MOLE_UNROLL for (Index i = 0; i < M; ++i) {
        Vector& sum = sums[j * M + i];
        sum = multiply_add(in[i].second, weight.second, multiply_add(in[i].first, weight.first, sum));
      }
    });
  };
  Index k = 0;
  MOLE_NO_UNROLL for (; k + width <= w.cols; k += width)
    accumulate([k](const float* from) { return Pair<Arch>::load(from + k); },
               [k, ahead](const auto& row) {
                 ask_ahead(row, k, ahead);
                 return row.template load<Arch>(k);
               });
  if (const Index rest = w.cols - k; rest > 0)
    accumulate([k, rest](const float* from) { return load_first(from + k, rest); },
               [k, rest](const auto& row) { return row.template load_first<Arch>(k, rest); });
  MOLE_UNROLL for (Index s = 0; s < M * N; ++s) y(n + s % M)[column + s / M] = sum(sums[s]);
}

template <class Arch>
template <class Weight>
void CodedProducts<Arch>::nt_panels(StridedRows<const float> x, Index tokens, const Weight& w, Index first, Index rows,
                                    StridedRows<float> y) {
  alignas(64) Panel panel;
  for (Index r = 0; r < rows; r += width) {
    const Index count = std::min(width, rows - r);
    for (Index k = 0; k < w.cols; k += depth) {
      const Index deep = std::min(depth, w.cols - k);
      pack_transposed(panel, w, first + r, count, k, deep);
      OuterProducts<Arch, float>{}(Factors<float>{x.data + k, x.stride, 1}, StridedRows<const float>{panel, width},
                                   true, deep, tokens, count, StridedRows<float>{y.data + r, y.stride}, k > 0);
    }
  }
}

/// panel[k][j] = w[row + j][column + k], k < cols, j < rows.
/// Transposed element by element, 64 tokens took 1.24 to 1.53 times as long, 512 up to 1.07 times (AVX-512).
template <class Arch>
template <class Weight>
void CodedProducts<Arch>::pack_transposed(Panel& panel, const Weight& w, Index row, Index rows, Index column,
                                          Index cols) {
  alignas(64) float square[std::size_t(width * width)] = {};
  for (Index k = 0; k < cols; k += width) {
    const Index count = std::min(width, cols - k);
    for (Index j = 0; j < rows; ++j)
      in_order_of_memory<Weight>(load_weight(w.row(row + j), column + k, count)).store(square + j * width);
    Transpose<Arch, float>{}(square, width, width, count, panel + k * width, width);
  }
}

template <class Arch>
template <class Weight>
void CodedProducts<Arch>::nn(StridedRows<const float> d_y, Index tokens, const Weight& w, Index rows, Index first,
                             Index cols, StridedRows<float> d_x) const {
  static_assert(CodedRows<Weight, Arch>);
  if (tokens >= nn_panel_tokens) return nn_panels(d_y, tokens, w, rows, first, cols, d_x);
  Index o = 0;
  if (tokens == 1)  // its rows come from memory: four at once are fewer streams
    for (; o + 4 <= rows; o += 4) nn_tokens_of<4>(d_y, tokens, w, o, first, cols, d_x);
  for (; o + nn_rows <= rows; o += nn_rows) nn_tokens_of<nn_rows>(d_y, tokens, w, o, first, cols, d_x);
  for (; o < rows; ++o) nn_tokens_of<1>(d_y, tokens, w, o, first, cols, d_x);
}

template <class Arch>
template <Index Rows, class Weight>
void CodedProducts<Arch>::nn_tokens_of(StridedRows<const float> d_y, Index tokens, const Weight& w, Index o,
                                       Index first, Index cols, StridedRows<float> d_x) {
  Index n = 0;
  for (; n + nn_tokens <= tokens; n += nn_tokens) nn_tile<nn_tokens, Rows>(d_y, n, w, o, first, cols, d_x);
  for (; n + 4 <= tokens; n += 4) nn_tile<4, Rows>(d_y, n, w, o, first, cols, d_x);
  for (; n + 2 <= tokens; n += 2) nn_tile<2, Rows>(d_y, n, w, o, first, cols, d_x);
  for (; n < tokens; ++n) nn_tile<1, Rows>(d_y, n, w, o, first, cols, d_x);
}

/// d_x_n += the contribution of rows o ... o + Rows - 1 for tokens n ... n + M - 1.
template <class Arch>
template <Index M, Index Rows, class Weight>
void CodedProducts<Arch>::nn_tile(StridedRows<const float> d_y, Index n, const Weight& w, Index o, Index first,
                                  Index cols, StridedRows<float> d_x) {
  decltype(w.row(0)) rows[std::size_t(Rows)];
  MOLE_UNROLL for (Index r = 0; r < Rows; ++r) rows[r] = w.row(o + r);
  const Index ahead = Rows * w.bytes();
  const auto accumulate = [&](auto load_x, auto load_w, auto store) MOLE_INLINE {
    Pair<Arch> sums[std::size_t(M)];
    MOLE_UNROLL for (Index i = 0; i < M; ++i) sums[i] = in_order_of<Weight>(load_x(d_x(n + i)));
    unroll<Rows>([&](auto r) MOLE_INLINE {
      const Pair<Arch> weight = load_w(rows[r]);
      MOLE_UNROLL for (Index i = 0; i < M; ++i) {
        const Vector factor(d_y(n + i)[o + r]);
        sums[i] = {multiply_add(factor, weight.first, sums[i].first),
                   multiply_add(factor, weight.second, sums[i].second)};
      }
    });
    MOLE_UNROLL for (Index i = 0; i < M; ++i) store(in_order_of_memory<Weight>(sums[i]), d_x(n + i));
  };
  const Index end = first + cols;
  Index k = first;
  MOLE_NO_UNROLL for (; k + width <= end; k += width)
    accumulate([k](const float* from) { return Pair<Arch>::load(from + k); },
               [k, ahead](const auto& row) {
                 ask_ahead(row, k, ahead);
                 return row.template load<Arch>(k);
               },
               [k](const Pair<Arch>& sum, float* to) { sum.store(to + k); });
  if (const Index rest = end - k; rest > 0)
    accumulate([k, rest](const float* from) { return load_first(from + k, rest); },
               [k, rest](const auto& row) { return row.template load_first<Arch>(k, rest); },
               [k, rest](const Pair<Arch>& sum, float* to) {
                 alignas(64) float elements[std::size_t(width)];
                 sum.store(elements);
                 std::copy_n(elements, rest, to + k);
               });
}

template <class Arch>
template <class Weight>
void CodedProducts<Arch>::nn_panels(StridedRows<const float> d_y, Index tokens, const Weight& w, Index rows,
                                    Index first, Index cols, StridedRows<float> d_x) {
  alignas(64) Panel panel;
  for (Index c = 0; c < cols; c += width) {
    const Index count = std::min(width, cols - c);
    for (Index o = 0; o < rows; o += depth) {
      const Index deep = std::min(depth, rows - o);
      for (Index k = 0; k < deep; ++k)
        in_order_of_memory<Weight>(load_weight(w.row(o + k), first + c, count)).store(panel + k * width);
      OuterProducts<Arch, float>{}(Factors<float>{d_y.data + o, d_y.stride, 1}, StridedRows<const float>{panel, width},
                                   true, deep, tokens, count, StridedRows<float>{d_x.data + first + c, d_x.stride},
                                   true);
    }
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
