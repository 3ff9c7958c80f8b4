// SPDX-License-Identifier: MIT
#include "mole/kernel/uniform_columns.hpp"

#include "grid.hpp"
#include "mole/core/random.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <vector>

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Uniform columns have the bits of the plain loop at every edge of a vector", "[kernel]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  const std::uint64_t near_the_end = ~std::uint64_t(0) - 5;  // counters wrap around
  for (const std::uint64_t row : {std::uint64_t(0), std::uint64_t(0x123456789abcdef), near_the_end})
    for (const Index first : {Index(0), Index(2), Index(510), Index(1) << 33})
      for (const Index size : grid<T>())
        for (const Index misaligned : {0, 1}) {
          auto to = random_output<T>(1, size, rng, {.before = 1 + misaligned, .after = 1});
          auto expected = to;
          fill_uniform_columns(row, first, 0.7, expected.view().row(0));
          kernel::UniformColumns<Arch, T>{}(row, first, 0.7, to.row(0), size);
          CAPTURE(row, first, size, misaligned);
          CHECK(support::same_bits(to.view(), expected.view()));
          CHECK(to.intact());
        }
}

TEST_CASE("A part of a row of uniform columns is that part of the whole row", "[kernel]") {
  std::vector<float> whole(101), part(37);
  kernel::UniformColumns<Arch, float>{}(5, 0, 1, whole.data(), 101);
  kernel::UniformColumns<Arch, float>{}(5, 64, 1, part.data(), 37);
  CHECK(std::equal(part.begin(), part.end(), whole.begin() + 64));
}
