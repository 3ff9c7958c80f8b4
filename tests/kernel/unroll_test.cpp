// SPDX-License-Identifier: MIT
#include "mole/kernel/unroll.hpp"

#include "support/catch.hpp"

#include <vector>

using mole::kernel::unroll;

TEST_CASE("unroll calls with each number in order, as a constant", "[kernel]") {
  std::vector<mole::Index> calls;
  unroll<4>([&](auto i) MOLE_INLINE {
    static_assert(decltype(i)::value < 4);
    calls.push_back(i);
  });
  CHECK(calls == std::vector<mole::Index>{0, 1, 2, 3});
  unroll<0>([&](auto) MOLE_INLINE { calls.clear(); });
  CHECK(calls.size() == 4);
}
