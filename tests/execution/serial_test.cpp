// SPDX-License-Identifier: MIT
#include "mole/execution/serial.hpp"

#include "support/catch.hpp"

#include <vector>

TEST_CASE("Serial runs each task once, in order", "[execution]") {
  for (mole::Index tasks : {0, 1, 5}) {
    std::vector<mole::Index> seen, expected;
    for (mole::Index i = 0; i < tasks; ++i) expected.push_back(i);
    mole::Serial{}.parallel_for(tasks, [&](mole::Index i) { seen.push_back(i); });
    CHECK(seen == expected);
  }
  CHECK(mole::Serial{}.threads() == 1);
}
