// SPDX-License-Identifier: MIT
// SimdProducts: the dense products of the vectorized execution, and how their work is cut into tasks.
#pragma once

#include "mole/execution/execution_policy.hpp"
#include "mole/execution/serial.hpp"
#include "mole/execution/simd_costs.hpp"
#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/panel.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The products of plain matrices of Simd; see ExecutionArchetype for what each primitive computes.
template <class Arch, class Executor>
class SimdProducts {
 public:
  SimdProducts() = default;
  explicit SimdProducts(Executor executor) : executor_(std::move(executor)) {}

  int threads() const { return std::max(1, int(executor_.threads())); }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    executor_.parallel_for(tasks, std::forward<F>(f));
  }

  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    // Packing a panel pays once enough rows share it. A narrow w, of a router, never pays much: its rows have the same
    // bits in any batch.
    if (x.rows() < Costs::rows_for_a_panel || w.rows() <= Costs::rows_of_a_narrow_weight)
      return product_by_dots(x, w, y);
    product_by_panels(
        w.cols(),
        [&](Index row, Index i) {
          return kernel::Factors<T>{x.row_data(row) + i, x.stride(), 1};
        },
        [&](Panel<T>& panel, Index i, Index depth, Index column, Index cols) {
          panel.pack_transposed(w.row_data(column) + i, w.stride(), depth, cols);
        },
        y, false);
  }

  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    product_by_panels(
        w.rows(),
        [&](Index row, Index o) {
          return kernel::Factors<T>{d_y.row_data(row) + o, d_y.stride(), 1};
        },
        [&](Panel<T>& panel, Index o, Index depth, Index column, Index cols) {
          panel.pack(w.row_data(o) + column, w.stride(), depth, cols);
        },
        d_x, true);
  }

  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    if (d_w.rows() < Costs::rows_for_a_panel) return narrow_product_tn(d_y, x, d_w);
    product_by_panels(
        x.rows(),
        [&](Index row, Index n) {
          return kernel::Factors<T>{d_y.row_data(n) + row, 1, d_y.stride()};
        },
        [&](Panel<T>& panel, Index n, Index depth, Index column, Index cols) {
          panel.pack(x.row_data(n) + column, x.stride(), depth, cols);
        },
        d_w, true);
  }

 protected:
  template <class T>
  using Panel = kernel::Panel<Arch, T>;
  template <class T>
  using Outer = kernel::OuterProducts<Arch, T>;
  template <class T>
  using Rows = kernel::StridedRows<T>;

  using Costs = SimdCosts;
  static constexpr Index run = Costs::run;

  static Index blocks_of(Index size, Index block) { return Costs::blocks_of(size, block); }
  static Index items_per_task(double work, Index grain) { return Costs::items_per_task(work, grain); }

  /// Columns per task: many panels, as long as every thread has some tasks and each task has enough work; a multiple
  /// of `grain` panels, which a kernel processes together. `work` is in operations per column; `others` tasks have the
  /// same columns.
  template <class T>
  Index columns_per_task(Index cols, double work, Index others, Index grain = 1) const {
    constexpr Index width = panel_width<T>;
    const Index least = items_per_task(work * double(width), 1);
    const Index shares = blocks_of(blocks_of(cols, width) * others, 4 * Index(threads()));
    return blocks_of(std::max(least, std::min(Costs::panels_of_a_task, shares)), grain) * grain * width;
  }

  /// y = x w^T, every row with the same bits in any batch.
  template <class T>
  void product_by_dots(View<const T> x, View<const T> w, View<T> y) const {
    // All rows are multiplied with a few columns of the result at a time, so that w is read once.
    const Index rows = std::clamp<Index>(x.rows(), 1, run);
    const Index cols = items_per_task(2.0 * double(w.cols()) * double(rows), 8);
    const Index across = blocks_of(w.rows(), cols);
    parallel_for(blocks_of(x.rows(), rows) * across, [&](Index task) {
      const Index n = task / across * rows, o = task % across * cols;
      const Index count = std::min(rows, x.rows() - n);
      std::array<const T*, run> in;
      std::array<T*, run> out;
      for (Index i = 0; i < count; ++i) {
        in[std::size_t(i)] = x.row_data(n + i);
        out[std::size_t(i)] = y.row_data(n + i) + o;
      }
      kernel::DotProducts<Arch, T>{}(in.data(), count, w.row_data(o), w.stride(), std::min(cols, w.rows() - o),
                                     w.cols(), out.data());
    });
  }

  /// d_x += d_y w, from panels of w: panels of the transpose are packed anew from the rows of eight or more panels.
  template <class T>
  void by_transposed_panels(View<const T> d_y, PanelView<const T> w, View<T> d_x) const {
    product_by_panels(
        w.rows(),
        [&](Index row, Index o) {
          return kernel::Factors<T>{d_y.row_data(row) + o, d_y.stride(), 1};
        },
        [&](Panel<T>& panel, Index o, Index depth, Index column, Index cols) {
          for (Index k = 0; k < depth; k += w.width - (o + k) % w.width) {
            const Index first = (o + k) % w.width, count = std::min(w.width - first, depth - k);
            panel.pack_transposed(w.panel((o + k) / w.width) + column * w.width + first, w.width, count, cols, k);
          }
        },
        d_x, true);
  }

 private:
  /// d_w += d_y^T x for a d_w of few rows, where a packed panel of x would not be read often enough.
  template <class T>
  void narrow_product_tn(View<const T> d_y, View<const T> x, View<T> d_w) const {
    const Index per_task = columns_per_task<T>(d_w.cols(), 2.0 * double(x.rows() * d_w.rows()), 1);
    parallel_for(blocks_of(d_w.cols(), per_task), [&](Index task) {
      const Index column = task * per_task, cols = std::min(per_task, d_w.cols() - column);
      for (Index n = 0; n < x.rows(); n += run)
        Outer<T>{}(kernel::Factors<T>{d_y.row_data(n), 1, d_y.stride()},
                   kernel::StridedRows<const T>{x.row_data(n) + column, x.stride()}, false, std::min(run, x.rows() - n),
                   d_w.rows(), cols, Rows<T>{d_w.data() + column, d_w.stride()}, true);
    });
  }

  /// result (+)= sum over k in [0, depth) of a_k b_k^T. left(row, k) returns the factors of the rows from `row` on;
  /// pack(panel, k, count, column, cols) puts `count` b_k into a panel.
  template <class T, class Left, class Pack>
  void product_by_panels(Index depth, Left left, Pack pack, View<T> result, bool accumulate) const {
    if (depth == 0) {
      if (!accumulate) fill(result, T(0));
      return;
    }
    for_each_panel<T>(result.cols(), result.rows(), 2.0 * double(depth),
                      [&](Index column, Index cols, Index row, Index rows) {
                        Panel<T> panel;
                        for (Index k = 0; k < depth; k += Panel<T>::depth) {
                          const Index count = std::min(Panel<T>::depth, depth - k);
                          pack(panel, k, count, column, cols);
                          Outer<T>{}(left(row, k), panel.rows(), true, count, rows, cols,
                                     Rows<T>{result.row_data(row) + column, result.stride()}, accumulate || k > 0);
                        }
                      });
  }

  /// Divides a result [rows x cols] into panels of columns, and long panels into blocks of rows, and calls
  /// f(column, cols, row, rows) for each; `work` is in operations per element.
  template <class T, class F>
  void for_each_panel(Index cols, Index rows, double work, F f) const {
    // Each block packs its panels again; short blocks only if there would be too few tasks for the threads.
    const bool few = blocks_of(cols, Panel<T>::width) < 4 * Index(threads()) && threads() > 1;
    const Index block = std::max<Index>(few ? 128 : 512, items_per_task(work * double(Panel<T>::width), 12));
    const Index along = blocks_of(rows, block);
    const Index panels = items_per_task(work * double(std::min(rows, block)) * double(Panel<T>::width), 1);
    const Index across = blocks_of(cols, panels * Panel<T>::width);
    parallel_for(across * along, [&](Index task) {
      const Index row = task % along * block, begin = task / along * panels * Panel<T>::width;
      const Index end = std::min(cols, begin + panels * Panel<T>::width);
      for (Index column = begin; column < end; column += Panel<T>::width)
        f(column, std::min(Panel<T>::width, cols - column), row, std::min(block, rows - row));
    });
  }

  [[no_unique_address]] Executor executor_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
