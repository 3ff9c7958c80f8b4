// SPDX-License-Identifier: MIT
#include "unit.hpp"

#include "support/catch.hpp"
#include "support/tolerance.hpp"

TEST_CASE("Two units of different flags link into one program and agree", "[execution]") {
  const two_units::Result baseline = two_units::run_baseline(), wide = two_units::run_wide();
  REQUIRE(baseline.numbers.size() == wide.numbers.size());
  REQUIRE(baseline.numbers.size() > 70 * (37 + 45));
  CHECK(wide.arch != baseline.arch);
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < wide.numbers.size(); ++i) {
    worst = std::max(worst, std::abs(double(baseline.numbers[i]) - double(wide.numbers[i])));
    largest = std::max(largest, std::abs(double(baseline.numbers[i])));
  }
  CHECK(largest > 1);
  CHECK(worst <= mole::test::Tolerance<float>::layer * largest);
}
