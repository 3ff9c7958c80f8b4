// SPDX-License-Identifier: MIT
// Simd: the vectorized execution.
#pragma once

#include "mole/core/linear_weights.hpp"
#include "mole/core/rank/rank_terms.hpp"
#include "mole/execution/execution_policy.hpp"
#include "mole/execution/simd_products.hpp"
#include "mole/execution/simd_runs.hpp"
#include "mole/execution/simd_terms.hpp"

#include <array>

#include "mole/core/macros_off.hpp"

namespace mole {

/// SIMD kernels of one instruction set, their tasks run by an executor.
///
/// Work is split by output: every element is computed by one task in a fixed order, so the bits do not depend on the
/// number of threads. Work too small to share stays on the caller's thread. Nothing is allocated; a task uses up to
/// 40 KiB of stack, 32 of them for a panel. See SimdCosts for the algorithms, ExecutionArchetype for what each
/// primitive computes.
template <class Arch = kernel::DefaultArchitecture, class Executor = Serial>
class Simd : public SimdProducts<Arch, Executor> {
  using Products = SimdProducts<Arch, Executor>;

  static_assert(ExecutorPolicy<Executor>,
                "mole: Executor does not model ExecutorPolicy (mole/execution/executor_policy.hpp)");

 public:
  using Architecture = Arch;
  using Products::Products, Products::threads, Products::parallel_for;

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, FactorSide side, const RankLayout<T>& layout,
                   std::span<T> h) const {
    if (const auto all = ranks_as_matrix(h, side, layout)) return this->product_by_dots(x, table.top(all.cols()), all);
    SimdRuns::for_each(*this, layout, table.cols(), [&](Index e, std::span<const int> pairs) {
      std::array<const T*, run> rows;
      std::array<T*, run> results;
      for (std::size_t q = 0; q < pairs.size(); ++q) {
        rows[q] = x.row_data(layout.routing.token(pairs[q]));
        results[q] = h.data() + layout.first(pairs[q]);
      }
      // Whatever the load of the expert: so the bits of a token do not depend on the others.
      kernel::DotProducts<Arch, T>{}(rows.data(), Index(pairs.size()), table.row_data(layout.first_row(e, side)),
                                     table.stride(), layout.blocks.size(e), table.cols(), results.data());
    });
  }

  template <class T>
  void routed_up(const RankTerms<T>& terms, View<T> result) const {
    add(terms, result);
  }

  /// Split by columns, because experts may share rows of the table.
  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const {
    if (const auto all = ranks_as_matrix(h, side, layout))
      return this->product_tn(all.middle_cols(all.cols() - d_table.rows(), d_table.rows()), x, d_table);
    const Index per_task = this->template columns_per_task<T>(d_table.cols(), 2.0 * double(layout.begin.back()), 1);
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
    this->product_nt(x, w.weight, y);
    if (w.bias) add_bias(w.bias, 0, y.rows(), 0, y.cols(), y);
    (add(terms, y), ...);
  }

  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    if (w.transposed_panels) return multiply(d_y, w.transposed_panels, {}, d_x, true, terms...);
    if (w.weight)
      this->product_nn(d_y, w.weight, d_x);
    else
      this->by_transposed_panels(d_y, w.panels, d_x);
    (add(terms, d_x), ...);
  }

 private:
  template <class T>
  using Outer = typename Products::template Outer<T>;
  template <class T>
  using Rows = typename Products::template Rows<T>;
  using Costs = SimdCosts;
  using Products::blocks_of, Products::run;

  /// result (+)= x w^T + bias + terms.   x [N x I], w [O x I]
  template <class T, class... Terms>
  void multiply(View<const T> x, PanelView<const T> w, View<const T> bias, View<T> result, bool accumulate,
                const Terms&... terms) const {
    // Few rows fit the cache anyway.
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

  /// Divides a result [rows x cols] into blocks for which the rows of both operands stay in L2, and calls
  /// f(row, rows, column, cols) for each; `work` is in operations per element. Columns begin at multiples of a panel.
  template <class T, class F>
  void for_each_block(Index rows, Index cols, double work, F f) const {
    const Index along = blocks_of(rows, Costs::rows_of_a_block);
    const Index block = blocks_of(blocks_of(rows, std::max<Index>(1, along)), 12) * 12;
    const Index wide = this->template columns_per_task<T>(cols, work * double(std::min(rows, block)), along,
                                                          rows == 1   ? 4
                                                          : rows <= 4 ? 2
                                                                      : 1);
    const Index across = blocks_of(cols, wide);
    parallel_for(along * across, [&](Index task) {
      const Index row = task / across * block, column = task % across * wide;
      f(row, std::min(block, rows - row), column, std::min(wide, cols - column));
    });
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
};

template <class Executor>
Simd(Executor) -> Simd<kernel::DefaultArchitecture, Executor>;

static_assert(ExecutionPolicy<Simd<>, float> && ExecutionPolicy<Simd<>, double>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
