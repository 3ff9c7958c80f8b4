// SPDX-License-Identifier: MIT
// AdapterRows: adds what one adapter makes of a few rows.
#pragma once

#include "mole/core/config.hpp"
#include "mole/execution/simd_terms.hpp"
#include "mole/kernel/dot_products.hpp"
#include "mole/kernel/row_sums.hpp"
#include "mole/surgery/weighted_adapter.hpp"

#include <algorithm>
#include <array>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_q += scale B^T (A x_q)   for rows x_q, y_q at any addresses
///
/// Executions with an Architecture use its kernels; others, Reference and ThroughEigen, plain loops. A row has the same
/// bits whatever rows are beside it. Uses up to 40 KiB of stack, and no other memory.
template <class Execution, class T>
struct AdapterRows {
  /// Rows and ranks that are processed at once: their h stays in L1.
  static constexpr Index most_rows = 48, most_ranks = 64;

  std::array<const T*, std::size_t(most_rows)> x;
  std::array<T*, std::size_t(most_rows)> y;

  void add(Index rows, const Adapter<T>& adapter) const {
    for (Index j = 0; j < adapter.rank(); j += most_ranks) {
      const Index ranks = std::min(most_ranks, adapter.rank() - j);
      add_ranks(rows, adapter.a.view().middle_rows(j, ranks), adapter.b.view().middle_rows(j, ranks), T(adapter.scale));
    }
  }

 private:
  /// a [ranks x I], b [ranks x O]
  void add_ranks(Index rows, View<const T> a, View<const T> b, T scale) const {
    alignas(64) T h[std::size_t(most_rows * most_ranks)];
    if constexpr (requires { typename Execution::Architecture; }) {
      using Arch = typename Execution::Architecture;
      std::array<T*, std::size_t(most_rows)> h_of;
      for (Index q = 0; q < rows; ++q) h_of[std::size_t(q)] = h + q * most_ranks;
      kernel::DotProducts<Arch, T>{}(x.data(), rows, a.data(), a.stride(), a.rows(), a.cols(), h_of.data());
      for (Index q = 0; q < rows; ++q)
        for (Index k = 0; k < a.rows(); ++k) h[q * most_ranks + k] *= scale;
      if (rows == 1) {
        std::array<const T*, std::size_t(most_ranks)> rows_of_b;
        for (Index k = 0; k < b.rows(); ++k) rows_of_b[std::size_t(k)] = b.row_data(k);
        kernel::RowSums<Arch, T>{}(h, rows_of_b.data(), b.rows(), b.cols(), y[0]);
      } else {
        SimdTerms<Arch>::add_product(kernel::GatheredFactors<T>{h_of.data()}, b, 0, b.cols(),
                                     kernel::GatheredRows<T>{y.data()}, rows);
      }
    } else {
      for (Index q = 0; q < rows; ++q)
        for (Index k = 0; k < a.rows(); ++k) {
          T sum = 0;
          for (Index i = 0; i < a.cols(); ++i) sum += a(k, i) * x[std::size_t(q)][i];
          h[q * most_ranks + k] = scale * sum;
        }
      for (Index q = 0; q < rows; ++q)
        for (Index k = 0; k < b.rows(); ++k)
          for (Index o = 0; o < b.cols(); ++o) y[std::size_t(q)][o] += h[q * most_ranks + k] * b(k, o);
    }
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
