// SPDX-License-Identifier: MIT
// RankTerms, LinearTerm: the rows that experts and a linear router add to a result.
#pragma once

#include "mole/core/rank/rank_layout.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// result_n += sum over the pairs p = (n, e) of token n, and the ranks j of e, of h_pj row_ej.
///
///   h [ranks of all pairs], rows [ranks x columns]
///
/// For y, h holds the weighted ranks and rows are those of B; for d_x, h is d_h and rows are those of A.
template <class T>
struct RankTerms {
  RankLayout<T> layout;
  std::span<const T> h;
  View<const T> rows;
  FactorSide side;

  Index first_row(Index expert) const { return layout.first_row(expert, side); }
  void add_to(View<T> result, const auto& execution) const { execution.routed_up(*this, result); }
};

/// h as a matrix [tokens x ranks] if every token has every expert and no two experts share rows; else empty.
template <class U, class T>
View<U> ranks_as_matrix(std::span<U> h, FactorSide side, const RankLayout<T>& layout) {
  if (!layout.routing.dense() ||
      (side == FactorSide::down && layout.blocks.shared_down() && layout.blocks.experts() > 1))
    return {};
  return {h.data(), layout.routing.tokens(), layout.blocks.ranks_up()};
}

/// The term of a linear map with few inputs, such as a router's share of d_x:   result += a w.   a [N x E],
/// w [E x columns]
template <class T>
struct LinearTerm {
  View<const T> a, w;

  void add_to(View<T> result, const auto& execution) const { execution.product_nn(a, w, result); }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
