// SPDX-License-Identifier: MIT
#include "mole/execution/simd_runs.hpp"

#include "mole/execution/simd.hpp"
#include "support/catch.hpp"
#include "support/execution_checks.hpp"

#include <vector>

using namespace mole;
using namespace mole::test;

namespace {

/// Runs in the order in which one thread meets them.
template <class T>
std::vector<std::vector<int>> runs_of(const RankLayout<T>& layout, Index cols) {
  std::vector<std::vector<int>> runs;
  SimdRuns::for_each(Simd<>{}, layout, cols, [&](Index e, std::span<const int> pairs) {
    REQUIRE_FALSE(pairs.empty());
    CHECK(Index(pairs.size()) <= SimdCosts::run);
    bool of_expert = true, ascend = true;
    for (std::size_t q = 0; q < pairs.size(); ++q) {
      of_expert &= layout.routing.expert(pairs[q]) == e;
      ascend &= q == 0 || layout.routing.token(pairs[q - 1]) < layout.routing.token(pairs[q]);
    }
    CHECK(of_expert);
    CHECK(ascend);
    runs.emplace_back(pairs.begin(), pairs.end());
  });
  return runs;
}

}  // namespace

TEST_CASE("Runs have every pair once, for any routing and any blocks", "[execution]") {
  TestRng rng;
  for (Index experts : {2, 5, 100, 1025})
    for (Index ranks : {1, 3, 8})
      for (Index tokens : {0, 1, 30, 700})
        for (Spread spread : spreads) {
          if (spread == Spread::everybody && experts > 100) continue;  // a million pairs say no more
          const RankBlocks blocks = RankBlocks::uniform(experts, ranks);
          const auto routing = random_routing<float>(spread, tokens, experts, rng);
          const std::vector<int> begin;
          std::vector<int> met(std::size_t(routing.pairs()), 0);
          for (const auto& run : runs_of(RankLayout<float>{blocks, routing, begin}, 768))
            for (int pair : run) ++met[std::size_t(pair)];
          CAPTURE(experts, ranks, tokens, int(spread));
          CHECK(std::all_of(met.begin(), met.end(), [](int times) { return times == 1; }));
        }
}

TEST_CASE("Experts of few ranks finish the tokens of a block before they begin another", "[execution]") {
  TestRng rng;
  const Index tokens = 700, cols = 768;
  const std::vector<int> begin;
  const auto check = [&](Index experts, Index ranks, Index bytes) {
    const RankBlocks blocks = RankBlocks::uniform(experts, ranks);
    const auto routing = random_routing<float>(Spread::random_pairs, tokens, experts, rng);
    const RankLayout<float> layout{blocks, routing, begin};
    const Index block = SimdRuns::tokens_that_stay_near(layout, cols);
    CAPTURE(experts, ranks);
    CHECK(block == (bytes == 0 ? tokens : bytes / (cols * Index(sizeof(float)))));
    Index last = 0;
    bool in_turn = true;
    for (const auto& run : runs_of(layout, cols))
      for (int pair : run) {
        const Index number = routing.token(pair) / block;
        in_turn &= number >= last;
        last = number;
      }
    CHECK(in_turn);
  };
  check(5, 1, SimdCosts::bytes_in_first_cache);  // 10 tokens: four pairs of each expert
  check(5, 3, SimdCosts::bytes_in_first_cache);
  check(20, 1, SimdCosts::bytes_in_second_cache);  // one pair of each in the first, seventeen in the second
  check(100, 1, 0);                                // three in the second
  check(5, 4, 0);                                  // ranks enough to do something with a row
}
