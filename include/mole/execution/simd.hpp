// SPDX-License-Identifier: MIT
// The vectorised execution.
#pragma once

#include "mole/execution/execution_policy.hpp"
#include "mole/execution/serial.hpp"
#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/panel.hpp"
#include "mole/kernel/row_sum.hpp"

#include <array>
#include <tuple>
#include <utility>

namespace mole {

/// SIMD kernels of one instruction set, their tasks run by an executor.
///
/// Work is split by output: every element is computed by one task in a fixed order, so the bits do not depend on the
/// number of threads. Work too small to share stays on the caller's thread. Nothing is allocated; a task holds up to
/// 40 KiB on its stack. See ExecutionArchetype for what each primitive means.
template <class Arch = xsimd::default_arch, class Executor = Serial>
class Simd {
  static_assert(ExecutorPolicy<Executor>,
                "mole: Executor does not model ExecutorPolicy (mole/execution/executor_policy.hpp)");

 public:
  Simd() = default;
  explicit Simd(Executor executor) : executor_(std::move(executor)) {}

  int threads() const { return executor_.concurrency(); }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    executor_.parallel_for(tasks, std::forward<F>(f));
  }

  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    // Packing a panel pays once enough rows share it; a narrow w has no panel to fill.
    if (x.rows() < 64 || w.rows() < Panel<T>::width) return product_by_dots(x, w, y);
    product_by_panels(
        w.cols(),
        [&](Index row, Index i) {
          return Rows<T>{x.row_data(row) + i, 1};
        },
        x.stride(),
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
          return Rows<T>{d_y.row_data(row) + o, 1};
        },
        d_y.stride(),
        [&](Panel<T>& panel, Index o, Index depth, Index column, Index cols) {
          panel.pack(w.row_data(o) + column, w.stride(), depth, cols);
        },
        d_x, true);
  }

  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    product_by_panels(
        x.rows(),
        [&](Index row, Index n) {
          return Rows<T>{d_y.row_data(n) + row, d_y.stride()};
        },
        1,
        [&](Panel<T>& panel, Index n, Index depth, Index column, Index cols) {
          panel.pack(x.row_data(n) + column, x.stride(), depth, cols);
        },
        d_w, true);
  }

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> a, const RankLayout<T>& layout, std::span<T> h) const {
    project(
        x, a, layout, [&](Index e) { return layout.blocks.down(e); }, h, [](Index, std::span<const int>) {});
  }

  template <class T>
  void routed_up(std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                 std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, View<T> y) const {
    add_rows(layout, b, y, [&](Index p, Index j, Index e) {
      return std::pair{scale[std::size_t(e)] * layout.routing.weight(p) * h[std::size_t(layout.first(p) + j)],
                       b.row_data(layout.blocks.up(e) + j)};
    });
  }

  template <class T>
  void routed_up_backward(ConstView<T> d_y, std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                          std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, std::span<T> d_h,
                          std::span<T> d_weight, View<T> d_b) const {
    const auto up = [&](Index e) { return layout.blocks.up(e); };
    project(d_y, b, layout, up, d_h, [&](Index e, std::span<const int> pairs) {
      for (int p : pairs) weigh_ranks(p, scale[std::size_t(e)], h, layout, d_h, d_weight);
    });
    if (d_b)
      add_outer_products(layout, d_y, d_b, up, [&](Index p, Index j, Index e) {
        return scale[std::size_t(e)] * layout.routing.weight(p) * h[std::size_t(layout.first(p) + j)];
      });
  }

  template <class T>
  void routed_down_backward(ConstView<T> x, std::span<const std::type_identity_t<T>> d_h, ConstView<T> a,
                            const RankLayout<T>& layout, View<T> d_a, View<T> d_x) const {
    if (d_a)
      add_outer_products(
          layout, x, d_a, [&](Index e) { return layout.blocks.down(e); },
          [&](Index p, Index j, Index) { return d_h[std::size_t(layout.first(p) + j)]; });
    if (d_x)
      add_rows(layout, a, d_x, [&](Index p, Index j, Index e) {
        return std::pair{d_h[std::size_t(layout.first(p) + j)], a.row_data(layout.blocks.down(e) + j)};
      });
  }

 private:
  template <class T>
  using Panel = kernel::Panel<Arch, T>;
  template <class T>
  using Outer = kernel::OuterProducts<Arch, T>;
  template <class T>
  using Rows = kernel::StridedRows<T>;

  static constexpr Index run = 64;              // pairs, or rows, that a kernel is handed at once
  static constexpr double task_work = 200'000;  // operations worth a task: some 10 us

  static Index blocks_of(Index size, Index block) { return (size + block - 1) / block; }

  /// How many of `items`, `work` operations each, make a task; a multiple of `grain`.
  static Index items_per_task(double work, Index grain) {
    return blocks_of(Index(task_work / std::max(work, 1.0)) + 1, grain) * grain;
  }

  template <class T>
  void product_by_dots(View<const T> x, View<const T> w, View<T> y) const {
    const Index rows = std::min(run, items_per_task(2.0 * double(w.cols()) * double(w.rows()), 4));
    const Index cols = x.rows() > rows ? w.rows() : items_per_task(2.0 * double(w.cols()) * double(x.rows()), 4);
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

  /// result (+)= sum over k in [0, depth) of a_k b_k^T. left(row, k) says where the a_k of rows from `row` on lie,
  /// a_step apart; pack(panel, k, count, column, cols) puts `count` b_k into a panel.
  template <class T, class Left, class Pack>
  void product_by_panels(Index depth, Left left, Index a_step, Pack pack, View<T> result, bool accumulate) const {
    for_each_panel<T>(result.cols(), result.rows(), 2.0 * double(depth),
                      [&](Index column, Index cols, Index row, Index rows) {
                        Panel<T> panel;
                        for (Index k = 0; k < depth; k += Panel<T>::depth) {
                          const Index count = std::min(Panel<T>::depth, depth - k);
                          pack(panel, k, count, column, cols);
                          Outer<T>{}(left(row, k), a_step, panel.rows(), true, count, rows, cols,
                                     result.row_data(row) + column, result.stride(), accumulate || k > 0);
                        }
                      });
  }

  /// Cuts a result [rows x cols] into panels of columns, and long panels into blocks of rows, and calls
  /// f(column, cols, row, rows) for each; `work` is in operations an element.
  template <class T, class F>
  void for_each_panel(Index cols, Index rows, double work, F f) const {
    const Index block = std::max<Index>(512, items_per_task(work * double(Panel<T>::width), 12));
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

  /// Calls f(expert, pairs) for runs of pairs of one expert, no longer than `run`; `work` in operations a rank.
  template <class T, class F>
  void for_each_run(const RankLayout<T>& layout, double work, F f) const {
    const std::span<const int> order = layout.routing.by_expert();
    const Index per_task = items_per_task(work * double(layout.blocks.max_size()), run);
    parallel_for(blocks_of(Index(order.size()), per_task), [&](Index task) {
      const Index end = std::min(Index(order.size()), (task + 1) * per_task);
      for (Index q = task * per_task; q < end;) {
        const Index e = layout.routing.expert(order[std::size_t(q)]);
        const Index count = std::min({run, end - q, layout.routing.first_of_expert(e + 1) - q});
        f(e, order.subspan(std::size_t(q), std::size_t(count)));
        q += count;
      }
    });
  }

  /// h_p = table_e x_n for every pair; then calls after(expert, pairs), on the thread that computed them. Expert e's
  /// first row of the table is first_row(e).
  template <class T, class FirstRow, class After>
  void project(View<const T> x, View<const T> table, const RankLayout<T>& layout, FirstRow first_row, std::span<T> h,
               After after) const {
    for_each_run(layout, 2.0 * double(table.cols()), [&](Index e, std::span<const int> pairs) {
      std::array<const T*, run> rows;
      std::array<T*, run> results;
      for (std::size_t q = 0; q < pairs.size(); ++q) {
        rows[q] = x.row_data(layout.routing.token(pairs[q]));
        results[q] = h.data() + layout.first(pairs[q]);
      }
      kernel::DotProducts<Arch, T>{}(rows.data(), Index(pairs.size()), table.row_data(first_row(e)), table.stride(),
                                     layout.blocks.size(e), table.cols(), results.data());
      after(e, pairs);
    });
  }

  /// From u = d_h to d_h and d_weight of one pair.
  template <class T>
  static void weigh_ranks(Index p, T scale, std::span<const T> h, const RankLayout<T>& layout, std::span<T> d_h,
                          std::span<T> d_weight) {
    T d = 0;
    for (Index at = layout.first(p); at < layout.first(p) + layout.ranks(p); ++at) {
      const T u = scale * d_h[std::size_t(at)];
      d += u * h[std::size_t(at)];
      d_h[std::size_t(at)] = layout.routing.weight(p) * u;
    }
    if (!d_weight.empty()) d_weight[std::size_t(p)] += d;
  }

  /// y_n += the rows that `term(pair, rank, expert)` names as (factor, row), over the pairs of token n.
  template <class T, class F>
  void add_rows(const RankLayout<T>& layout, View<const T> table, View<T> y, F term) const {
    const double ranks_per_token = double(layout.begin.back()) / double(std::max<Index>(1, y.rows()));
    const Index per_task = items_per_task(2.0 * ranks_per_token * double(table.cols()), 8);
    parallel_for(blocks_of(y.rows(), per_task), [&](Index task) {
      std::array<T, run> factors;
      std::array<const T*, run> rows;
      for (Index n = task * per_task; n < std::min(y.rows(), (task + 1) * per_task); ++n) {
        Index count = 0;
        const auto flush = [&] {
          if (count > 0) kernel::RowSum<Arch, T>{}(factors.data(), rows.data(), count, y.row_data(n), y.cols());
          count = 0;
        };
        for (Index p = layout.routing.first_pair(n); p < layout.routing.first_pair(n + 1); ++p)
          for (Index j = 0; j < layout.ranks(p); ++j) {
            std::tie(factors[std::size_t(count)], rows[std::size_t(count)]) = term(p, j, layout.routing.expert(p));
            if (++count == run) flush();
          }
        flush();
      }
    });
  }

  /// d_e += sum over the pairs of e of factor(pair, rank, expert) x_n^T, for every expert e, whose first row of `d` is
  /// first_row(e). Split by columns, so that experts may share rows of d.
  template <class T, class FirstRow, class Factor>
  void add_outer_products(const RankLayout<T>& layout, View<const T> x, View<T> d, FirstRow first_row,
                          Factor factor) const {
    constexpr Index ranks = 32;  // as many ranks at once as a buffer of factors holds
    const Index per_task = items_per_task(2.0 * double(layout.begin.back()), Outer<T>::width);
    parallel_for(blocks_of(d.cols(), per_task), [&](Index task) {
      const Index column = task * per_task, cols = std::min(per_task, d.cols() - column);
      std::array<T, std::size_t(run * ranks)> factors;
      std::array<const T*, run> rows;
      for (Index e = 0; e < layout.blocks.experts(); ++e) {
        const std::span<const int> pairs = layout.routing.pairs_of(e);
        for (Index q = 0; q < Index(pairs.size()); q += run)
          for (Index j = 0; j < layout.blocks.size(e); j += ranks) {
            const Index depth = std::min(run, Index(pairs.size()) - q),
                        count = std::min(ranks, layout.blocks.size(e) - j);
            for (Index k = 0; k < depth; ++k) {
              const int p = pairs[std::size_t(q + k)];
              rows[std::size_t(k)] = x.row_data(layout.routing.token(p)) + column;
              for (Index i = 0; i < count; ++i) factors[std::size_t(k * ranks + i)] = factor(p, j + i, e);
            }
            Outer<T>{}(Rows<T>{factors.data(), ranks}, 1, kernel::GatheredRows<T>{rows.data()}, false, depth, count,
                       cols, d.row_data(first_row(e) + j) + column, d.stride(), true);
          }
      }
    });
  }

  [[no_unique_address]] Executor executor_;
};

template <class Executor>
Simd(Executor) -> Simd<xsimd::default_arch, Executor>;

static_assert(ExecutionPolicy<Simd<>, float> && ExecutionPolicy<Simd<>, double>);

}  // namespace mole
