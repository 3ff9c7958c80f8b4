// SPDX-License-Identifier: MIT
#include "mole/kernel/transpose.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("A transpose moves every element, and writes nothing else", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  for (Index rows : grid<T>())
    for (Index cols : grid<T>())
      for (Index misaligned : {0, 1}) {
        const auto from = random_input<T>(rows, cols, rng, {.padding = 3, .before = misaligned});
        auto to = random_output<T>(cols, rows, rng, {.padding = 2, .before = 1 + misaligned, .after = 1});
        kernel::Transpose<Arch, T>{}(from.row(0), from.view().stride(), rows, cols, to.row(0), to.view().stride());
        bool moved = true;
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < cols; ++c) moved &= to(c, r) == from(r, c);
        CAPTURE(rows, cols, misaligned);
        CHECK(moved);
        CHECK(to.intact());
      }
}
