// SPDX-License-Identifier: MIT
#include "mole/kernel/scalar_vector.hpp"

#include "grid.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("A vector of one element computes what its element does", "[kernel]", float, double) {
  using T = TestType;
  using Vector = kernel::Vector<kernel::Scalar, T>;
  STATIC_REQUIRE(std::is_same_v<Vector, kernel::ScalarVector<T>>);
  STATIC_REQUIRE(kernel::step_of<kernel::Scalar, T> == 1);
  STATIC_REQUIRE(sizeof(Vector) == sizeof(T));
  for (const auto& [a, b] : {std::pair(T(0.75), T(-3)), std::pair(T(-3), T(0.75)), std::pair(T(0.75), T(0.75))}) {
    const Vector x = Vector::load_unaligned(&a), y = Vector::load_aligned(&b);
    const auto is = [](Vector found, T expected) {
      T stored = 0, aligned = 0;
      found.store_unaligned(&stored);
      found.store_aligned(&aligned);
      return stored == expected && aligned == expected;
    };
    Vector total = x;
    total += y;
    CAPTURE(a, b);
    CHECK((is(total, a + b) && is(x + y, a + b) && is(x - y, a - b) && is(x * y, a * b) && is(x / y, a / b)));
    CHECK((is(-x, -a) && is(T(1) - x, 1 - a)));
    CHECK((all(x < y) == (a < b) && all(x <= y) == (a <= b) && all(x > y) == (a > b) && all(x == y) == (a == b)));
    CHECK((all((x < y) & (x == x)) == (a < b) && !all((x < y) & (x > y))));
    CHECK((is(select(x < y, x, y), std::min(a, b)) && is(max(x, y), std::max(a, b))));
    CHECK((is(abs(x), std::abs(a)) && is(exp(x), std::exp(a)) && is(sqrt(abs(x)), std::sqrt(std::abs(a)))));
    CHECK((kernel::sum(x) == a && kernel::largest(x) == a));
    CHECK(is(kernel::multiply_add(x, y, Vector(T(0.5))), a * b + T(0.5)));
  }
}

TEST_CASE("The default architecture is the widest that xsimd knows, else that of one element", "[kernel]") {
  if (xsimd::default_arch::supported())
    CHECK(std::is_same_v<kernel::DefaultArchitecture, xsimd::default_arch>);
  else
    CHECK(std::is_same_v<kernel::DefaultArchitecture, kernel::Scalar>);
}
