// SPDX-License-Identifier: MIT
// The vectorized execution.
#pragma once

#include "mole/core/linear_weights.hpp"
#include "mole/core/rank/rank_terms.hpp"
#include "mole/execution/execution_policy.hpp"
#include "mole/execution/serial.hpp"
#include "mole/execution/simd_costs.hpp"
#include "mole/execution/simd_runs.hpp"
#include "mole/execution/simd_terms.hpp"
#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/panel.hpp"

#include <array>
#include <utility>

namespace mole {

/// SIMD kernels of one instruction set, their tasks run by an executor.
///
/// Work is split by output: every element is computed by one task in a fixed order, so the bits do not depend on the
/// number of threads. Work too small to share stays on the caller's thread. Nothing is allocated; a task holds up to
/// 40 KiB on its stack, 32 of them a panel. See ExecutionArchetype for what each primitive means.
template <class Arch = kernel::DefaultArchitecture, class Executor = Serial>
class Simd {
  static_assert(ExecutorPolicy<Executor>,
                "mole: Executor does not model ExecutorPolicy (mole/execution/executor_policy.hpp)");

 public:
  using Architecture = Arch;

  Simd() = default;
  explicit Simd(Executor executor) : executor_(std::move(executor)) {}

  int threads() const { return executor_.threads(); }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    executor_.parallel_for(tasks, std::forward<F>(f));
  }

  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    // Packing a panel pays once enough rows share it; a narrow w has no panel to fill.
    if (x.rows() < Costs::rows_for_a_panel || w.rows() < Panel<T>::width) return product_by_dots(x, w, y);
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

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, FactorSide side, const RankLayout<T>& layout,
                   std::span<T> h) const {
    if (const auto all = ranks_as_matrix(h, side, layout)) return product_nt(x, table.top(all.cols()), all);
    SimdRuns::for_each(*this, layout, table.cols(), [&](Index e, std::span<const int> pairs) {
      std::array<const T*, run> rows;
      std::array<T*, run> results;
      for (std::size_t q = 0; q < pairs.size(); ++q) {
        rows[q] = x.row_data(layout.routing.token(pairs[q]));
        results[q] = h.data() + layout.first(pairs[q]);
      }
      project(rows.data(), Index(pairs.size()), table.middle_rows(layout.first_row(e, side), layout.blocks.size(e)),
              results.data());
    });
  }

  template <class T>
  void routed_up(const RankTerms<T>& terms, View<T> result) const {
    add(terms, result);
  }

  /// Split by columns, so that experts may share rows of the table.
  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const {
    if (const auto all = ranks_as_matrix(h, side, layout))
      return product_tn(all.middle_cols(all.cols() - d_table.rows(), d_table.rows()), x, d_table);
    const Index per_task = columns_per_task<T>(d_table.cols(), 2.0 * double(layout.begin.back()), 1);
    const Index block = std::max(run, SimdRuns::tokens_that_stay_near(layout, x.cols()));
    parallel_for(blocks_of(d_table.cols(), per_task), [&](Index task) {
      const Index column = task * per_task, cols = std::min(per_task, d_table.cols() - column);
      std::array<const T*, run> factors, rows;
      for (Index begin = 0; begin < x.rows(); begin += block)
        for (Index e = 0; e < layout.blocks.experts(); ++e) {
          const auto share = layout.share_of_last(d_table.rows(), e, side);
          if (share.count == 0) continue;
          const std::span<const int> pairs = layout.routing.pairs_of(e, begin, begin + block);
          for (Index q = 0; q < Index(pairs.size()); q += run) {
            const Index depth = std::min(run, Index(pairs.size()) - q);
            for (Index k = 0; k < depth; ++k) {
              const int p = pairs[std::size_t(q + k)];
              factors[std::size_t(k)] = h.data() + layout.first(p) + share.skip;
              rows[std::size_t(k)] = x.row_data(layout.routing.token(p)) + column;
            }
            Outer<T>{}(kernel::FactorColumns<T>{factors.data()}, kernel::GatheredRows<const T>{rows.data()}, false,
                       depth, share.count, cols, Rows<T>{d_table.row_data(share.row) + column, d_table.stride()}, true);
          }
        }
    });
  }

  template <class T, class... Terms>
  void linear(ConstView<T> x, const LinearWeights<T>& w, View<T> y, const Terms&... terms) const {
    if (w.panels) return multiply(x, w.panels, w.bias, y, false, terms...);
    product_nt(x, w.weight, y);
    if (w.bias) add_bias(w.bias, 0, y.rows(), 0, y.cols(), y);
    (add(terms, y), ...);
  }

  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    if (w.transposed_panels) return multiply(d_y, w.transposed_panels, {}, d_x, true, terms...);
    if (w.weight)
      product_nn(d_y, w.weight, d_x);
    else
      turned_panels(d_y, w.panels, d_x);
    (add(terms, d_x), ...);
  }

 private:
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

  /// d_w += d_y^T x where d_w has few rows: no packed panel of x would be read often enough.
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

  template <class T>
  void product_by_dots(View<const T> x, View<const T> w, View<T> y) const {
    // All rows meet a few columns of the result at a time, so that w is read once.
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

  /// result (+)= sum over k in [0, depth) of a_k b_k^T. left(row, k) gives the factors of rows from `row` on;
  /// pack(panel, k, count, column, cols) puts `count` b_k into a panel.
  template <class T, class Left, class Pack>
  void product_by_panels(Index depth, Left left, Pack pack, View<T> result, bool accumulate) const {
    for_each_panel<T>(result.cols(), result.rows(), 2.0 * double(depth),
                      [&](Index column, Index cols, Index row, Index rows) {
                        Panel<T> panel;
                        Index k = 0;
                        do {
                          const Index count = std::min(Panel<T>::depth, depth - k);
                          pack(panel, k, count, column, cols);
                          Outer<T>{}(left(row, k), panel.rows(), true, count, rows, cols,
                                     Rows<T>{result.row_data(row) + column, result.stride()}, accumulate || k > 0);
                          k += count;
                        } while (k < depth);
                      });
  }

  /// Cuts a result [rows x cols] into panels of columns, and long panels into blocks of rows, and calls
  /// f(column, cols, row, rows) for each; `work` is in operations an element.
  template <class T, class F>
  void for_each_panel(Index cols, Index rows, double work, F f) const {
    // Each block packs its panels anew; short ones only where there would be too few for the threads.
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

  /// d_x += d_y w, from panels of w: columns of d_x are packed anew from the rows of eight or more panels.
  template <class T>
  void turned_panels(View<const T> d_y, PanelView<const T> w, View<T> d_x) const {
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

  /// result (+)= x w^T + bias + terms.   x [N x I], w [O x I]
  template <class T, class... Terms>
  void multiply(View<const T> x, PanelView<const T> w, View<const T> bias, View<T> result, bool accumulate,
                const Terms&... terms) const {
    // For few rows there is nothing to keep near.
    const Index sums =
        x.rows() > Costs::rows_for_pieces ? std::max<Index>(1, blocks_of(x.cols(), Costs::terms_of_a_sum)) : 1;
    const Index most = blocks_of(x.cols(), sums), group = Costs::panels_of_a_group * w.width;
    for_each_block<T>(
        result.rows(), result.cols(), 2.0 * double(x.cols()), [&](Index row, Index rows, Index column, Index cols) {
          Index k = 0;
          do {
            const Index depth = std::min(most, x.cols() - k), end = column + cols;
            for (Index c = column; c < end; c += group) {
              const Index wide = std::min(group, end - c);
              Outer<T>{}(kernel::Factors<T>{x.row_data(row) + k, x.stride(), 1},
                         kernel::PanelRows<const T>{w.panel(c / w.width) + k * w.width, w.stride(), rows}, true, depth,
                         rows, wide, Rows<T>{result.row_data(row) + c, result.stride()}, accumulate || k > 0);
              if (k + depth < x.cols()) continue;
              if (bias) add_bias(bias, row, rows, c, wide, result);
              (SimdTerms<Arch>::add(terms, row, rows, c, wide, result), ...);
            }
            k += depth;
          } while (k < x.cols());
        });
  }

  /// Cuts a result [rows x cols] into blocks whose rows of both operands stay in the second cache, and calls
  /// f(row, rows, column, cols) for each; `work` is in operations an element. Columns begin at multiples of a panel.
  template <class T, class F>
  void for_each_block(Index rows, Index cols, double work, F f) const {
    const Index along = blocks_of(rows, Costs::rows_of_a_block);
    const Index block = blocks_of(blocks_of(rows, std::max<Index>(1, along)), 12) * 12;
    const Index wide = columns_per_task<T>(cols, work * double(std::min(rows, block)), along,
                                           rows == 1   ? 4
                                           : rows <= 4 ? 2
                                                       : 1);
    const Index across = blocks_of(cols, wide);
    parallel_for(along * across, [&](Index task) {
      const Index row = task / across * block, column = task % across * wide;
      f(row, std::min(block, rows - row), column, std::min(wide, cols - column));
    });
  }

  /// Columns of a task: many panels, as long as every thread has some tasks and each has work enough; a multiple
  /// of `grain` panels, which a kernel takes side by side. `work` is in operations a column; `others` tasks have the
  /// same columns.
  template <class T>
  Index columns_per_task(Index cols, double work, Index others, Index grain = 1) const {
    constexpr Index width = panel_width<T>;
    const Index least = items_per_task(work * double(width), 1);
    const Index shares = blocks_of(blocks_of(cols, width) * others, 4 * Index(threads()));
    return blocks_of(std::max(least, std::min(Costs::panels_of_a_task, shares)), grain) * grain * width;
  }

  template <class T>
  static void add_bias(View<const T> bias, Index row, Index rows, Index column, Index cols, View<T> y) {
    for (Index n = row; n < row + rows; ++n)
      for (Index o = column; o < column + cols; ++o) y.row_data(n)[o] += bias.data()[o];
  }

  /// result += terms
  template <class T, class Terms>
  void add(const Terms& terms, View<T> result) const {
    for_each_block<T>(result.rows(), result.cols(), SimdTerms<Arch>::work(terms, result.rows()),
                      [&](Index row, Index rows, Index column, Index cols) {
                        SimdTerms<Arch>::add(terms, row, rows, column, cols, result);
                      });
  }

  /// results_q = table rows_q. A panel pays once enough rows share it, the more the less of it the table fills.
  template <class T>
  static void project(const T* const* rows, Index count, View<const T> table, T** results) {
    if (count * std::min(table.rows(), Panel<T>::width) < Costs::rows_for_a_panel * Panel<T>::width)
      return kernel::DotProducts<Arch, T>{}(rows, count, table.data(), table.stride(), table.rows(), table.cols(),
                                            results);
    Panel<T> panel;
    for (Index j = 0; j < table.rows(); j += panel.width) {
      const Index width = std::min(panel.width, table.rows() - j);
      for (Index k = 0; k < table.cols(); k += panel.depth) {
        const Index depth = std::min(panel.depth, table.cols() - k);
        panel.pack_transposed(table.row_data(j) + k, table.stride(), depth, width);
        Outer<T>{}(kernel::GatheredFactors<T>{rows, k}, panel.rows(), true, depth, count, width,
                   kernel::GatheredRows<T>{results}, k > 0);
      }
      for (Index q = 0; q < count; ++q) results[q] += width;
    }
  }

  [[no_unique_address]] Executor executor_;
};

template <class Executor>
Simd(Executor) -> Simd<kernel::DefaultArchitecture, Executor>;

static_assert(ExecutionPolicy<Simd<>, float> && ExecutionPolicy<Simd<>, double>);

}  // namespace mole
