// SPDX-License-Identifier: MIT
// RankLayout: where the ranks of each routed pair lie in memory.
#pragma once

#include "mole/core/rank/rank_blocks.hpp"
#include "mole/core/routing.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Whose rows: those of A (down) or of B (up).
enum class FactorSide { down, up };

/// The projected ranks h of all routed pairs, pair after pair: pair p of expert e owns the blocks.size(e) numbers from
/// h[begin[p]] on.   begin [pairs + 1]
template <class T>
struct RankLayout {
  const RankBlocks& blocks;
  const Routing<T>& routing;
  std::span<const int> begin;

  Index first(Index pair) const { return begin[std::size_t(pair)]; }
  Index first_row(Index expert, FactorSide side) const {
    return side == FactorSide::down ? blocks.down(expert) : blocks.up(expert);
  }
  Index rows(FactorSide side) const { return side == FactorSide::down ? blocks.ranks_down() : blocks.ranks_up(); }

  /// The part of an expert's block that lies in the last `last_rows` rows of a table: `count` ranks after the first
  /// `skip`, from row `row` of those last rows on.
  struct Share {
    Index skip, count, row;
  };
  Share share_of_last(Index last_rows, Index expert, FactorSide side) const {
    const Index frozen = rows(side) - last_rows, first = first_row(expert, side), size = blocks.size(expert);
    const Index skip = std::clamp<Index>(frozen - first, 0, size);
    return {skip, size - skip, first + skip - frozen};
  }

  Index ranks(Index pair) const { return begin[std::size_t(pair) + 1] - begin[std::size_t(pair)]; }
};

/// Calls f(pair, row of B, index in h) for all ranks, pair after pair.
template <class T, class F>
void for_each_rank(const RankLayout<T>& layout, F f) {
  for (Index p = 0; p < layout.routing.pairs(); ++p) {
    const Index row = layout.first_row(layout.routing.expert(p), FactorSide::up);
    for (Index j = 0; j < layout.ranks(p); ++j) f(p, row + j, std::size_t(layout.first(p) + j));
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
