// SPDX-License-Identifier: MIT
#include "mole/core/rank_layout.hpp"

#include "support/catch.hpp"

using namespace mole;

TEST_CASE("A rank layout tells where a pair's ranks begin and how many there are", "[core]") {
  const std::vector<int> ranks{2, 0, 3}, begin{0, 3, 3, 5};
  const Blocks blocks = Blocks::ragged(ranks);
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
