// SPDX-License-Identifier: MIT
#include "mole/core/rank/rank_blocks.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("Uniform blocks lie one after the other", "[core]") {
  const RankBlocks blocks = RankBlocks::uniform(3, 4);
  CHECK(blocks.experts() == 3);
  CHECK(blocks.max_size() == 4);
  CHECK(blocks.ranks_up() == 12);
  CHECK(blocks.ranks_down() == 12);
  for (Index e = 0; e < 3; ++e) {
    CHECK(blocks.size(e) == 4);
    CHECK(blocks.up(e) == 4 * e);
    CHECK(blocks.down(e) == 4 * e);
  }
}

TEST_CASE("Ragged blocks begin where the one before ends, and may be empty", "[core]") {
  const std::vector<int> ranks{1, 5, 0, 2};
  const RankBlocks blocks = RankBlocks::ragged(ranks);
  const std::vector<Index> begin{0, 1, 6, 6};
  for (Index e = 0; e < 4; ++e) {
    CHECK(blocks.size(e) == ranks[std::size_t(e)]);
    CHECK(blocks.up(e) == begin[std::size_t(e)]);
    CHECK(blocks.down(e) == begin[std::size_t(e)]);
  }
  CHECK(blocks.max_size() == 5);
  CHECK(blocks.ranks_up() == 8);
  CHECK(blocks.ranks_down() == 8);
}

TEST_CASE("RankBlocks with a shared down-projection all read its first rows", "[core]") {
  const std::vector<int> ranks{1, 5, 0, 2};
  const RankBlocks blocks = RankBlocks::ragged(ranks, true);
  CHECK(blocks.shared_down());
  for (Index e = 0; e < 4; ++e) CHECK(blocks.down(e) == 0);
  CHECK(blocks.up(3) == 6);
  CHECK(blocks.ranks_up() == 8);
  CHECK(blocks.ranks_down() == 5);  // as many as the largest expert reads
  CHECK(RankBlocks::uniform(3, 4, true).ranks_down() == 4);
  CHECK_FALSE(RankBlocks::uniform(3, 4).shared_down());
}

TEST_CASE("RankBlocks follow others, unless experts share a down-projection", "[core]") {
  const std::vector<int> ranks{1, 5, 0};
  const RankBlocks both = RankBlocks::ragged(ranks).followed_by(RankBlocks::uniform(2, 3));
  CHECK(both.experts() == 5);
  CHECK(both.up(3) == 6);
  CHECK(both.down(4) == 9);
  CHECK(both.size(4) == 3);
  CHECK(both.ranks_down() == 12);
  CHECK(RankBlocks::uniform(1, 3, true).followed_by(RankBlocks::uniform(1, 2)).down(1) == 3);
  for (bool first : {true, false})
    CHECK(text_of([&] {
            RankBlocks::uniform(2, 4, first).followed_by(RankBlocks::uniform(2, 4, !first));
          }).find("found one that 2 experts share") != std::string::npos);
}

TEST_CASE("RankBlocks without experts or of negative rank are refused", "[core]") {
  CHECK(code_of([] { RankBlocks::uniform(0, 4); }) == ErrorCode::option);
  CHECK(code_of([] { RankBlocks::uniform(-1, 4); }) == ErrorCode::option);
  CHECK(code_of([] { RankBlocks::uniform(2, -1); }) == ErrorCode::option);
  const std::vector<int> ranks{1, -2};
  CHECK(text_of([&] { RankBlocks::ragged(ranks); }) == "RankBlocks: expected a rank of at least 0, found -2");
  CHECK_NOTHROW(RankBlocks::uniform(2, 0));
}
