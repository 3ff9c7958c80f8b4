// SPDX-License-Identifier: MIT
// SimdTerms: adds expert and router terms to an output tile while it is still in cache.
#pragma once

#include "mole/core/rank/rank_terms.hpp"
#include "mole/execution/simd_costs.hpp"
#include "mole/kernel/outer_products.hpp"
#include "mole/kernel/row_sums.hpp"

#include <algorithm>
#include <array>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Adds terms to rows [row, row + rows) and columns [column, column + cols) of a result.
///
/// How routed ranks are added depends on the routing and the blocks: as one matrix product if every token has every
/// expert, token by token if experts have few ranks, else expert by expert. Each element is the same chain of
/// multiply-adds in any block.
template <class Arch>
struct SimdTerms {
  /// Operations per element of a result.
  template <class T>
  static double work(const RankTerms<T>& terms, Index rows) {
    return 2.0 * double(terms.layout.begin.back()) / double(std::max<Index>(1, rows));
  }
  template <class T>
  static double work(const LinearTerm<T>& term, Index) {
    return 2.0 * double(term.w.rows());
  }

  template <class T>
  static void add(const LinearTerm<T>& term, Index row, Index rows, Index column, Index cols, View<T> result) {
    add_product(kernel::Factors<T>{term.a.row_data(row), term.a.stride(), 1}, term.w, column, cols,
                Rows<T>{result.row_data(row) + column, result.stride()}, rows);
  }

  template <class T>
  static void add(const RankTerms<T>& terms, Index row, Index rows, Index column, Index cols, View<T> result) {
    if (const auto h = ranks_as_matrix(terms.h, terms.side, terms.layout))
      add(LinearTerm<T>{h, terms.rows.top(h.cols())}, row, rows, column, cols, result);
    else if (terms.layout.blocks.max_size() < SimdCosts::ranks_for_a_run)
      add_tokens(terms, row, rows, column, cols, result);
    else
      add_experts(terms, row, rows, column, cols, result);
  }

  /// to += factors table, in `cols` columns of the table from `column` on.   factors [rows x rows of the table]
  template <class A, class C, class T>
  static void add_product(A factors, View<const T> table, Index column, Index cols, C to, Index rows) {
    const kernel::StridedRows<const T> all{table.data() + column, table.stride()};
    // Rows whose distance is a multiple of 2 KiB compete for the same sets of L1; copied side by side they do not.
    if (rows < Outer<T>::most_rows || table.stride() * Index(sizeof(T)) % 2048 != 0)
      return Outer<T>{}(factors, all, false, table.rows(), rows, cols, to, true);
    constexpr Index wide = panel_width<T>, deep = 128;
    alignas(64) T near[std::size_t(deep * wide)];
    for (Index c = 0; c < cols; c += wide) {
      const Index width = std::min(wide, cols - c);
      for (Index j = 0; j < table.rows(); j += deep) {
        const Index depth = std::min(deep, table.rows() - j);
        for (Index i = 0; i < depth; ++i) std::copy_n(all(j + i) + c, width, near + i * wide);
        Outer<T>{}(factors.shifted(j), Rows<const T>{near, wide}, true, depth, rows, width, to.shifted(c), true);
      }
    }
  }

 private:
  template <class T>
  using Outer = kernel::OuterProducts<Arch, T>;
  template <class T>
  using Rows = kernel::StridedRows<T>;
  static constexpr Index run = SimdCosts::run;

  /// Token by token: with few ranks per expert, a row is hardly read for more than one token.
  template <class T>
  static void add_tokens(const RankTerms<T>& terms, Index row, Index rows, Index column, Index cols, View<T> result) {
    const Routing<T>& routing = terms.layout.routing;
    std::array<const T*, run> table;
    for (Index n = row; n < row + rows; ++n) {
      const T* h = terms.h.data() + terms.layout.first(routing.first_pair(n));
      Index count = 0;
      const auto flush = [&] {
        kernel::RowSums<Arch, T>{}(h, table.data(), count, cols, result.row_data(n) + column);
        h += count;
        count = 0;
      };
      for (Index p = routing.first_pair(n); p < routing.first_pair(n + 1); ++p)
        for (Index j = 0; j < terms.layout.ranks(p); ++j) {
          table[std::size_t(count)] = terms.rows.row_data(terms.first_row(routing.expert(p)) + j) + column;
          if (++count == run) flush();
        }
      if (count > 0) flush();
    }
  }

  /// Expert by expert: the rows of an expert are read once for many tokens.
  template <class T>
  static void add_experts(const RankTerms<T>& terms, Index row, Index rows, Index column, Index cols, View<T> result) {
    const Routing<T>& routing = terms.layout.routing;
    const std::span<const int> order = routing.by_expert();
    for (Index q = 0; q < Index(order.size());) {
      const Index e = routing.expert(order[std::size_t(q)]);
      const std::span<const int> pairs = routing.pairs_of(e, row, row + rows);
      for (std::size_t done = 0; done < pairs.size(); done += std::size_t(run))
        add_run(terms, e, pairs.subspan(done, std::min(std::size_t(run), pairs.size() - done)), column, cols, result);
      q = routing.first_of_expert(e + 1);
    }
  }

  /// The terms of up to `run` pairs of one expert.
  template <class T>
  static void add_run(const RankTerms<T>& terms, Index expert, std::span<const int> pairs, Index column, Index cols,
                      View<T> result) {
    std::array<const T*, run> h;
    std::array<T*, run> to;
    for (std::size_t q = 0; q < pairs.size(); ++q) {
      h[q] = terms.h.data() + terms.layout.first(pairs[q]);
      to[q] = result.row_data(terms.layout.routing.token(pairs[q])) + column;
    }
    add_product(kernel::GatheredFactors<T>{h.data()},
                terms.rows.middle_rows(terms.first_row(expert), terms.layout.blocks.size(expert)), column, cols,
                kernel::GatheredRows<T>{to.data()}, Index(pairs.size()));
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
