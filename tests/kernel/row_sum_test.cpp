// SPDX-License-Identifier: MIT
#include "mole/kernel/row_sum.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("A weighted sum of rows equals a plain loop", "[kernel]", float, double) {
  using T = TestType;
  TestRng rng;
  for (Index length : grid<T>())
    for (Index misaligned : {0, 1})
      for (Index count : {0, 1, 2, 7}) {
        const auto rows = random_input<T>(count, length, rng, {.padding = 1, .before = misaligned});
        const auto factors = random_input<T>(1, count, rng);
        auto y = random_output<T>(1, length, rng, {.before = 1 + misaligned, .after = 1});
        GuardedMatrix<T> expected = y;
        for (Index i = 0; i < length; ++i) {
          long double sum = y(0, i);
          for (Index j = 0; j < count; ++j) sum += static_cast<long double>(factors(0, j)) * rows(j, i);
          expected(0, i) = T(sum);
        }
        kernel::RowSum<Arch, T>{}(factors.row(0), row_pointers(rows).data(), count, y.row(0), length);
        CAPTURE(length, misaligned, count);
        CHECK(difference(y.view(), expected.view()) <= Tolerance<T>::sum(count + 1));
        CHECK(y.intact());
      }
}

TEMPLATE_TEST_CASE("A weighted sum has the same bits however rows and columns are split among calls", "[kernel]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  const Index length = 9 * kernel::step_of<Arch, T> + 3, count = 6;
  const auto rows = random_input<T>(count, length, rng);
  const auto factors = random_input<T>(1, count, rng);
  const auto start = random_output<T>(1, length, rng);
  const kernel::RowSum<Arch, T> row_sum;
  GuardedMatrix<T> whole = start;
  row_sum(factors.row(0), row_pointers(rows).data(), count, whole.row(0), length);
  for (Index j = 0; j <= count; ++j)
    for (Index i = 0; i <= length; ++i) {
      GuardedMatrix<T> pieces = start;
      for (const auto& [from, to] : {std::pair{Index(0), i}, std::pair{i, length}}) {
        std::vector<const T*> at;
        for (Index r = 0; r < count; ++r) at.push_back(rows.row(r) + from);
        row_sum(factors.row(0), at.data(), j, pieces.row(0) + from, to - from);
        row_sum(factors.row(0) + j, at.data() + j, count - j, pieces.row(0) + from, to - from);
      }
      CAPTURE(j, i);
      CHECK(difference(whole.view(), pieces.view()) == 0);
    }
}
