// SPDX-License-Identifier: MIT
#include "mole/kernel/row_sums.hpp"

#include "grid.hpp"
#include "mole/kernel/outer_products.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Row sums equal a plain loop, and the bits of outer products, at every edge", "[kernel]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  for (Index count : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 17})
    for (Index cols : grid<T>())
      for (Index misaligned : {0, 1}) {
        const auto factors = random_input<T>(1, count, rng, {.before = misaligned});
        const auto table = random_input<T>(count, cols, rng, {.padding = 3, .before = misaligned});
        auto rows = row_pointers(table);
        std::reverse(rows.begin(), rows.end());  // anywhere
        auto c = random_output<T>(1, cols, rng, {.before = 1 + misaligned, .after = 3});
        auto tile = c;
        Matrix<double> plain(1, cols);
        for (Index o = 0; o < cols; ++o) {
          plain(0, o) = double(c(0, o));
          for (Index k = 0; k < count; ++k) plain(0, o) += double(factors(0, k)) * double(rows[std::size_t(k)][o]);
        }
        kernel::RowSums<Arch, T>{}(factors.row(0), rows.data(), count, cols, c.row(0));
        kernel::OuterProducts<Arch, T>{}(kernel::Factors<T>{factors.row(0), 1, 1},
                                         kernel::GatheredRows<const T>{rows.data()}, false, count, 1, cols,
                                         kernel::StridedRows<T>{tile.row(0), 0}, true);
        CAPTURE(count, cols, misaligned);
        CHECK(difference(std::as_const(c).view(), plain.view().top(1)) <= Tolerance<T>::sum(count));
        CHECK(c.intact());
        CHECK(support::same_bits(c.view(), tile.view()));
      }
}
