// SPDX-License-Identifier: MIT
// SimdCosts: thresholds by which Simd chooses an algorithm.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>

namespace mole {

/// The constants of Simd's cost model. The program `calibrate` of the benchmarks measures them on a machine; they
/// decide about time only, never about results beyond the order of a sum.
///
/// - A weight that is not packed: dot products for few rows of x, else a panel packed on the stack.
/// - Routed ranks: one matrix product where every token has every expert; token by token, or in blocks of tokens, for
///   experts of few ranks; else expert by expert, each a run of dot products or, for many pairs, a panel.
/// - A packed weight: blocks of rows by groups of panels, for many rows in pieces of the sums, so that a piece of x and
///   a group of the result stay in the second cache.
struct SimdCosts {
  /// Rows that repay packing a whole panel for them: 16 at width 2048, 32 at 768.
  static constexpr Index rows_for_a_panel = 32;
  /// Ranks of an expert from which on its rows are worth reading for many tokens at once.
  static constexpr Index ranks_for_a_run = 4;
  /// Pairs of one expert, or rows, that a kernel is handed at once.
  static constexpr Index run = 128;
  /// Rows of so many bytes stay in the first, or the second, cache while experts of few ranks meet them one after the
  /// other; worth it from so many pairs of an expert on, for as many experts as a list on the stack holds.
  static constexpr Index bytes_in_first_cache = 32 << 10, bytes_in_second_cache = 512 << 10;
  static constexpr Index pairs_in_a_cache = 4, experts_in_a_list = 1024;
  /// Over packed weights: rows of a block, panels of a task, and panels whose results are finished together.
  static constexpr Index rows_of_a_block = 192, panels_of_a_task = 32, panels_of_a_group = 6;
  /// More rows than these compute a longer sum in pieces.
  static constexpr Index rows_for_pieces = 12, terms_of_a_sum = 1024;
  /// Operations of a task that is worth waking a thread for: some 10 us.
  static constexpr double task_work = 300'000;

  static Index blocks_of(Index size, Index block) { return (size + block - 1) / block; }
  /// How many items of `work` operations each make a task; a multiple of `grain`.
  static Index items_per_task(double work, Index grain) {
    return blocks_of(Index(task_work / std::max(work, 1.0)) + 1, grain) * grain;
  }
};

}  // namespace mole
