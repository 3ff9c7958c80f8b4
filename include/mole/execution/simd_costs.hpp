// SPDX-License-Identifier: MIT
// SimdCosts: thresholds by which Simd chooses an algorithm.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The constants of Simd's cost model. The program `calibrate` of the benchmarks measures them on a machine; they
/// affect time only, never results beyond the order of a sum.
///
/// | operand                    | if                           | algorithm                                            |
/// | -------------------------- | ---------------------------- | ---------------------------------------------------- |
/// | plain weight, y = x w^T    | rows of x < rows_for_a_panel | dot products; also if w has no more rows than        |
/// |                            |                              | rows_of_a_narrow_weight                              |
/// |                            | else                         | panels packed on the stack                           |
/// | plain weight, d_x += d_y w | always                       | panels packed on the stack                           |
/// | packed weight              | rows <= rows_for_pieces      | blocks of rows x groups of panels                    |
/// |                            | else                         | the same, the sums in pieces, so that a piece of x   |
/// |                            |                              | and a group of the result stay in L2                 |
/// | routed ranks, down         | always                       | dot products                                         |
/// | routed ranks, up           | every token has every expert | one matrix product                                   |
/// |                            | ranks < ranks_for_a_run      | token by token, or by blocks that fit L1 or L2       |
/// |                            | else                         | expert by expert in runs of pairs                    |
struct SimdCosts {
  /// Rows that repay packing a whole panel: 16 at width 2048, 32 at 768.
  static constexpr Index rows_for_a_panel = 32;
  /// Weights of up to so many rows are multiplied by dot products however many rows of x there are.
  static constexpr Index rows_of_a_narrow_weight = 128;
  /// Ranks per expert from which its rows are worth reading for many tokens at once.
  static constexpr Index ranks_for_a_run = 4;
  /// Pairs of one expert, or rows, that a kernel takes at once.
  static constexpr Index run = 128;
  /// Rows of so many bytes stay in L1 or L2 while experts of few ranks read them one after the other. This is worth it
  /// from so many pairs per expert on, for as many experts as a list on the stack holds.
  static constexpr Index bytes_in_first_cache = 32 << 10, bytes_in_second_cache = 512 << 10;
  static constexpr Index pairs_in_a_cache = 4, experts_in_a_list = 1024;
  /// For packed weights: rows per block, panels per task, and panels whose results are finished together.
  static constexpr Index rows_of_a_block = 192, panels_of_a_task = 32, panels_of_a_group = 6;
  /// With more rows than these, sums of more terms than these are computed in pieces.
  static constexpr Index rows_for_pieces = 12, terms_of_a_sum = 1024;
  /// Operations of a task that is worth waking a thread for: some 10 us.
  static constexpr double task_work = 300'000;

  static Index blocks_of(Index size, Index block) { return (size + block - 1) / block; }
  /// The number of items of `work` operations each per task; a multiple of `grain`.
  static Index items_per_task(double work, Index grain) {
    return blocks_of(Index(task_work / std::max(work, 1.0)) + 1, grain) * grain;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
