// SPDX-License-Identifier: MIT
#include "mole/kernel/vector.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("The first elements are loaded, then zeros, and nothing behind them is read", "[kernel]", float,
                   double) {
  constexpr Index step = kernel::step_of<Arch, TestType>;
  TestRng rng;
  for (Index misaligned : {0, 1})
    for (Index count = 0; count <= step; ++count) {
      CAPTURE(misaligned, count);
      const auto from = random_input<TestType>(1, count, rng, {.before = misaligned});
      GuardedMatrix<TestType> loaded(1, step, TestType(0));
      kernel::load_first<Arch>(from.row(0), count).store_unaligned(loaded.row(0));
      bool equal = true;
      for (Index i = 0; i < step; ++i) equal = equal && loaded(0, i) == (i < count ? from(0, i) : TestType(0));
      CHECK(equal);
    }
}

TEMPLATE_TEST_CASE("The first elements are stored, and nothing behind them is written", "[kernel]", float, double) {
  constexpr Index step = kernel::step_of<Arch, TestType>;
  TestRng rng;
  const auto from = random_input<TestType>(1, step, rng);
  const auto vector = kernel::Vector<Arch, TestType>::load_unaligned(from.row(0));
  for (Index misaligned : {0, 1})
    for (Index count = 0; count <= step; ++count) {
      CAPTURE(misaligned, count);
      auto to = random_output<TestType>(1, count, rng, {.before = misaligned, .after = step});
      kernel::store_first<Arch>(vector, to.row(0), count);
      CHECK(std::equal(to.row(0), to.row(0) + count, from.row(0)));
      CHECK(to.intact());
    }
}

TEMPLATE_TEST_CASE("The sum of a vector counts every element once", "[kernel]", float, double) {
  constexpr Index step = kernel::step_of<Arch, TestType>;
  GuardedMatrix<TestType> powers(1, step, TestType(0));
  TestType expected = 0;
  // Powers of two add up exactly, and each tells who is missing.
  for (Index i = 0; i < step; ++i) expected += powers(0, i) = TestType(1 << i);
  CHECK(kernel::sum(kernel::Vector<Arch, TestType>::load_unaligned(powers.row(0))) == expected);
}

TEMPLATE_TEST_CASE("A multiply-add is a product and a sum, within one rounding of each", "[kernel]", float, double) {
  using Vector = kernel::Vector<Arch, TestType>;
  constexpr Index step = kernel::step_of<Arch, TestType>;
  GuardedMatrix<TestType> x(1, step, TestType(0)), y(1, step, TestType(0)), z(1, step, TestType(0)),
      result(1, step, TestType(0));
  for (Index i = 0; i < step; ++i)
    x(0, i) = TestType(i + 1) / 3, y(0, i) = TestType(7 - i) / 7, z(0, i) = TestType(i) / 11;
  kernel::multiply_add(Vector::load_unaligned(x.row(0)), Vector::load_unaligned(y.row(0)),
                       Vector::load_unaligned(z.row(0)))
      .store_unaligned(result.row(0));
  for (Index i = 0; i < step; ++i) {
    const long double expected = (long double)(x(0, i)) * y(0, i) + z(0, i);
    const long double largest = std::abs((long double)(x(0, i)) * y(0, i)) + std::abs(z(0, i));
    CHECK(std::abs(result(0, i) - expected) <= std::numeric_limits<TestType>::epsilon() * largest);
  }
}
