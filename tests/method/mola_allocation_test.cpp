// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/mola_allocation.hpp"

#include "method/method_checks.hpp"
#include <numeric>
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("MoLA's four shapes share out the same number of experts", "[method]") {
  const auto total = [](MolaShape shape, Index layers) {
    const std::vector<int> experts = mola_allocation(shape, layers);
    return std::accumulate(experts.begin(), experts.end(), 0);
  };
  for (MolaShape shape :
       {MolaShape::inverted_triangle, MolaShape::triangle, MolaShape::hourglass, MolaShape::rectangle}) {
    CHECK(total(shape, 32) == 160);
    CHECK(total(shape, 4) == 20);
    CHECK(total(shape, 0) == 0);
  }
  CHECK(mola_allocation(MolaShape::inverted_triangle, 8) == std::vector<int>{2, 2, 4, 4, 6, 6, 8, 8});
  CHECK(mola_allocation(MolaShape::triangle, 4) == std::vector<int>{8, 6, 4, 2});
  CHECK(mola_allocation(MolaShape::hourglass, 8) == std::vector<int>{8, 8, 2, 2, 2, 2, 8, 8});
  CHECK(mola_allocation(MolaShape::rectangle, 3) == std::vector<int>{5, 5, 5});
  CHECK_THROWS_AS(mola_allocation(MolaShape::rectangle, -1), Error);
}
