// SPDX-License-Identifier: MIT
// Where the ranks of each routed pair lie.
#pragma once

#include "mole/core/blocks.hpp"
#include "mole/core/routing.hpp"

namespace mole {

/// Which factor's rows: those of A, or those of B.
enum class Side { down, up };

/// The projected ranks h of all routed pairs, pair after pair: pair p of expert e owns h[begin[p]] ... and has
/// blocks.size(e) numbers there.   begin [pairs + 1]
template <class T>
struct RankLayout {
  const Blocks& blocks;
  const Routing<T>& routing;
  std::span<const int> begin;

  Index first(Index pair) const { return begin[std::size_t(pair)]; }
  Index first_row(Index expert, Side side) const {
    return side == Side::down ? blocks.down(expert) : blocks.up(expert);
  }
  Index ranks(Index pair) const { return begin[std::size_t(pair) + 1] - begin[std::size_t(pair)]; }
};

}  // namespace mole
