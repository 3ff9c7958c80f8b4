// SPDX-License-Identifier: MIT
// split_experts(), split_router_rows(): more and smaller experts that do together what the few did.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/surgery/adapters_of.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

struct SplitExpertsOptions {
  Index parts = 2;       ///< of each expert
  Index copies = 1;      ///< of all experts, before they are split
  Dropout dropout = {};  ///< of the result, on the adapter's input
};

/// LowRank<DenseFactors> of the parts of E experts, or of so many copies of them: part j of expert e of copy c is
/// expert (c E + e) parts + j, with the scale of the whole.
///
///   B_e^T A_e = sum_j B_ej^T A_ej:   ranks are dealt out in order, as evenly as they go
///
/// A layer of the parts computes what it did before if its router gives the parts of an expert equal logits
/// (split_router_rows), and its gate chooses all of them and gives each the gate of the whole:
///     TopK{k}, Renormalized{s}  ->  TopK{parts k}, Renormalized{parts s}        Raw{s}  ->  Raw{parts s}
/// Parts tie at first, and ties go to the lower expert, so those of one expert are chosen together; without the factor
/// their experts would add a part of it. Training then tells the parts apart. After copies the router needs rows of its
/// own for each, as copies with equal rows would tie, too.
///
/// Error: none but the rounding of the sum. An A that several experts share is repeated. Throws Error(option) for less
/// than 1 part or copy, and for an expert with fewer ranks than parts. Copies.  Offline.
/// Source: after Lu et al. 2025 (Dynamic-DINO), arXiv:2507.17436, which cuts the hidden units of a feed-forward block;
/// an adapter's are its ranks. Third-party notes of it were at hand; the factor of the gates is ours.
template <class Experts>
Experts split_experts(const Experts& experts, const SplitExpertsOptions& options) {
  using T = typename Experts::Scalar;
  using Factors = std::remove_cvref_t<decltype(experts.factors())>;
  const Index parts = options.parts;
  require(parts >= 1 && options.copies >= 1, ErrorCode::option,
          "split_experts: expected parts and copies of at least 1, found ", parts, " and ", options.copies);
  const std::vector<Adapter<T>> wholes = adapters_of(experts);
  std::vector<int> ranks;
  std::vector<T> scale;
  Matrix<T> a(0, experts.in()), b(0, experts.out());
  for (Index c = 0; c < options.copies; ++c)
    for (const Adapter<T>& whole : wholes) {
      require(whole.rank() >= parts, ErrorCode::option, "split_experts: expected experts of at least ", parts,
              " ranks, one a part, found one of ", whole.rank());
      for (Index j = 0; j < parts; ++j) {
        ranks.push_back(int(whole.rank() / parts + (j < whole.rank() % parts ? 1 : 0)));
        scale.push_back(T(whole.scale));
      }
      a = stacked(a, whole.a);
      b = stacked(b, whole.b);
    }
  return Experts(Factors(RankBlocks::ragged(ranks), {std::move(a), std::move(b)}), std::move(scale), options.dropout);
}

/// Each row so many times, one below the other: those of a linear router, or the columns of its bias turned into rows,
/// for the parts of its experts.   [E x I] -> [E parts x I].  Throws Error(option) for less than 1 part.
template <class T>
Matrix<T> split_router_rows(View<const T> rows, Index parts) {
  require(parts >= 1, ErrorCode::option, "split_router_rows: expected at least 1 part, found ", parts);
  Matrix<T> split(checked_product("split_router_rows: rows", rows.rows(), parts), rows.cols());
  for (Index r = 0; r < split.rows(); ++r) std::ranges::copy(rows.row(r / parts), split.view().row_data(r));
  return split;
}
template <class T>
Matrix<T> split_router_rows(const Matrix<T>& rows, Index parts) {
  return split_router_rows(rows.view(), parts);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
