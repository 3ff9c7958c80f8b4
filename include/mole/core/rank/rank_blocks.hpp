// SPDX-License-Identifier: MIT
// RankBlocks: how one pair of factors (A, B) is divided into experts.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// An expert is a block of ranks. Expert e owns rows up(e) ... up(e) + size(e) - 1 of B, and reads as many rows of A,
/// from down(e) on: its own, or, with a shared down-projection (HydraLoRA), the same rows as every other expert.
///
///   three experts of 2, 1 and 3 ranks          with a shared down-projection (uniform blocks of 2)
///
///        A [6 x I]   B [6 x O]                       A [2 x I]   B [6 x O]
///        +-------+   +-------+                       +-------+   +-------+
///   e 0  | a0 a1 |   | b0 b1 |                  all  | a0 a1 |   | b0 b1 |  e 0
///   e 1  | a2    |   | b2    |                       +-------+   | b2 b3 |  e 1
///   e 2  | a3-a5 |   | b3-b5 |                                   | b4 b5 |  e 2
///        +-------+   +-------+                                   +-------+
class RankBlocks {
 public:
  static RankBlocks uniform(Index experts, Index ranks, bool shared_down = false) {
    return RankBlocks(std::vector<int>(std::size_t(checked_int("RankBlocks: experts", experts)),
                                       checked_int("RankBlocks: ranks of an expert", ranks)),
                      shared_down);
  }
  static RankBlocks ragged(std::span<const int> ranks, bool shared_down = false) {
    return RankBlocks({ranks.begin(), ranks.end()}, shared_down);
  }
  /// Uniform blocks of `rank`, or, if `ranks` is not empty, one block of each of its sizes.
  static RankBlocks of(Index experts, Index rank, std::span<const int> ranks, bool shared_down = false) {
    if (ranks.empty()) return uniform(experts, rank, shared_down);
    require_equal(ErrorCode::option, "RankBlocks: number of ranks", experts, Index(ranks.size()));
    return ragged(ranks, shared_down);
  }

  /// These experts, then those of `other`. Throws Error(option) if several experts share their down-projection.
  RankBlocks followed_by(const RankBlocks& other) const {
    std::vector<int> sizes;
    for (const RankBlocks* some : {this, &other}) {
      require(!some->shared_down_ || some->experts() <= 1, ErrorCode::option,
              "RankBlocks: expected experts with a down-projection each, found one that ", some->experts(),
              " experts share");
      for (Index e = 0; e < some->experts(); ++e) sizes.push_back(int(some->size(e)));
    }
    return ragged(sizes);
  }

  Index experts() const { return Index(begin_.size()) - 1; }
  Index size(Index expert) const { return begin_[std::size_t(expert) + 1] - begin_[std::size_t(expert)]; }
  Index up(Index expert) const { return begin_[std::size_t(expert)]; }
  Index down(Index expert) const { return shared_down_ ? 0 : up(expert); }
  bool shared_down() const { return shared_down_; }

  Index max_size() const { return max_size_; }
  Index ranks_up() const { return begin_.back(); }                               ///< rows of B
  Index ranks_down() const { return shared_down_ ? max_size_ : begin_.back(); }  ///< rows of A

 private:
  RankBlocks(const std::vector<int>& ranks, bool shared_down) : shared_down_(shared_down) {
    require(!ranks.empty(), ErrorCode::option, "RankBlocks: expected at least 1 expert, found 0");
    for (int rank : ranks) {
      require(rank >= 0, ErrorCode::option, "RankBlocks: expected a rank of at least 0, found ", rank);
      begin_.push_back(checked_int("RankBlocks: ranks of all experts", Index(begin_.back()) + rank));
      max_size_ = std::max<Index>(max_size_, rank);
    }
  }

  std::vector<int> begin_{0};
  Index max_size_ = 0;
  bool shared_down_ = false;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
