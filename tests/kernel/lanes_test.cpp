// SPDX-License-Identifier: MIT
#include "mole/kernel/lanes.hpp"

#include "kernel/grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Lanes hold rows side by side, the last one where there is no other, and give them back", "[kernel]",
                   float, double) {
  using T = TestType;
  using Lanes = kernel::Lanes<Arch, T>;
  TestRng rng;
  for (Index rows = 1; rows <= Lanes::step; ++rows)
    for (Index cols : grid<T>()) {
      const auto from = random_input<T>(rows, cols, rng, {.padding = 3, .before = 1});
      std::vector<typename Lanes::Vector> lanes(std::size_t(cols), typename Lanes::Vector(T(9)));
      Lanes::gather(from.view().data(), from.view().stride(), rows, cols, lanes.data());
      bool right = true;
      for (Index c = 0; c < cols; ++c) {
        std::vector<T> numbers(std::size_t(Lanes::step), T(0));
        lanes[std::size_t(c)].store_unaligned(numbers.data());
        for (Index r = 0; r < Lanes::step; ++r) right &= numbers[std::size_t(r)] == from(std::min(r, rows - 1), c);
      }
      auto to = random_output<T>(rows, cols, rng, {.padding = 2, .before = 1, .after = 1});
      Lanes::scatter(lanes.data(), rows, cols, to.view().data(), to.view().stride());
      CAPTURE(rows, cols);
      CHECK(right);
      CHECK(to.intact());
      CHECK(difference(from.view(), std::as_const(to).view()) == 0);
    }
}
