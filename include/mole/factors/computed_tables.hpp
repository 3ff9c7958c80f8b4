// SPDX-License-Identifier: MIT
// ComputedTables: scratch of factors that compute A and B from other parameters.
#pragma once

#include "mole/core/memory/memory_block.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/core/view.hpp"
#include "mole/factors/factor_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// A and B and their gradients.   a, d_a [ranks x I], b, d_b [ranks x O]; a pair is empty if that table is stored
template <class T>
struct ComputedTables {
  View<T> a, b, d_a, d_b;

  static ComputedTables both(const RankBlocks& blocks, Index in, Index out, Arena& arena) {
    ComputedTables tables = only_b(blocks, out, arena);
    tables.a = arena.matrix<T>(blocks.ranks_down(), in);
    tables.d_a = arena.matrix<T>(blocks.ranks_down(), in);
    return tables;
  }
  static ComputedTables only_b(const RankBlocks& blocks, Index out, Arena& arena) {
    return {{}, arena.matrix<T>(blocks.ranks_up(), out), {}, arena.matrix<T>(blocks.ranks_up(), out)};
  }

  /// Where to add the wanted gradients, set to 0.
  FactorViews<T> zeroed(bool wants_a, bool wants_b) const {
    if (wants_a) fill(d_a, T(0));
    if (wants_b) fill(d_b, T(0));
    return {wants_a ? d_a : View<T>(), wants_b ? d_b : View<T>()};
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
