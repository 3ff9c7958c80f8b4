// SPDX-License-Identifier: MIT
#include "mole/core/rank/rank_layout.hpp"

#include "support/catch.hpp"

using namespace mole;

TEST_CASE("A rank layout tells where a pair's ranks begin and how many there are", "[core]") {
  const std::vector<int> ranks{2, 0, 3}, begin{0, 3, 3, 5};
  const RankBlocks blocks = RankBlocks::ragged(ranks);
  Routing<float> routing;
  routing.start(3);
  for (int e : {2, 1, 0}) routing.push(e, 1);
  routing.end_token();
  routing.finish();
  const RankLayout<float> layout{blocks, routing, begin};
  for (Index p = 0; p < 3; ++p) {
    CHECK(layout.first(p) == begin[std::size_t(p)]);
    CHECK(layout.ranks(p) == blocks.size(routing.expert(p)));
  }
}

TEST_CASE("A rank layout tells which ranks of an expert lie in the last rows of a table", "[core]") {
  const std::vector<int> ranks{2, 0, 3};
  for (bool shared : {false, true}) {
    const RankBlocks blocks = RankBlocks::ragged(ranks, shared);
    const Routing<float> routing;
    const RankLayout<float> layout{blocks, routing, {}};
    for (FactorSide side : {FactorSide::down, FactorSide::up})
      for (Index last = 0; last <= layout.rows(side); ++last)
        for (Index e = 0; e < 3; ++e) {
          const auto share = layout.share_of_last(last, e, side);
          CAPTURE(shared, int(side), last, e);
          CHECK(share.skip + share.count == blocks.size(e));
          for (Index j = 0; j < blocks.size(e); ++j) {
            const Index row = layout.first_row(e, side) + j - (layout.rows(side) - last);  // in the last rows
            CHECK((j >= share.skip) == (row >= 0));
            if (j >= share.skip) CHECK(share.row + j - share.skip == row);
          }
        }
  }
}
