// SPDX-License-Identifier: MIT
#include "mole/factors/computed_tables.hpp"

#include "support/catch.hpp"

using namespace mole;

TEST_CASE("Computed tables have the sizes of their blocks, and zeros where gradients are wanted", "[factors]") {
  const RankBlocks blocks = RankBlocks::uniform(3, 2, true);  // 2 rows of A, 6 of B
  const auto make = [&](Arena& arena) { return ComputedTables<float>::both(blocks, 5, 7, arena); };
  MemoryBlock memory(bytes_of(make), std::pmr::get_default_resource());
  Arena arena(memory.bytes());
  const auto tables = make(arena);
  CHECK(tables.a.rows() == 2);
  CHECK(tables.a.cols() == 5);
  CHECK(tables.d_b.rows() == 6);
  CHECK(tables.d_b.cols() == 7);
  fill(tables.d_a, 3), fill(tables.d_b, 3);
  const FactorViews<float> only_b = tables.zeroed(false, true);
  CHECK(!only_b.a);
  CHECK(only_b.b.data() == tables.d_b.data());
  CHECK(tables.d_b(5, 6) == 0);
  CHECK(tables.d_a(0, 0) == 3);
  CHECK(tables.zeroed(true, false).a.data() == tables.d_a.data());
  CHECK(tables.d_a(1, 4) == 0);
  CHECK(bytes_of([&](Arena& a) { return ComputedTables<float>::only_b(blocks, 7, a); }) < bytes_of(make));
}
