// SPDX-License-Identifier: MIT
#include "mole/base/fp4_base.hpp"

#include "support/coded_base_checks.hpp"

#include <algorithm>
#include <array>
#include <cmath>

using namespace mole;
using namespace mole::test;

TEST_CASE("Fp4Base does what every coded base does", "[base]") {
  check_coded_base<Fp4Base>();
}

TEST_CASE("FP4 takes the nearest level, whose codes are in no order; a midpoint goes to the lower", "[base]") {
  std::array<float, 16> ascending = Fp4Levels::levels;
  std::sort(ascending.begin(), ascending.end());
  for (std::size_t place = 0; place + 1 < 16; ++place) {
    const float below = ascending[place], above = ascending[place + 1], middle = (below + above) / 2;
    CAPTURE(place);
    CHECK(Fp4Levels::levels[Fp4Levels::code(below)] == below);
    CHECK(Fp4Levels::levels[Fp4Levels::code(middle)] == below);
    CHECK(Fp4Levels::levels[Fp4Levels::code(std::nextafter(middle, 2.0f))] == above);
  }
  CHECK(Fp4Levels::levels[Fp4Levels::code(1)] == 1);
}

TEST_CASE("Zero has two codes in FP4: 0 from below and at zero, 8 from above", "[base]") {
  CHECK(int(Fp4Levels::code(0)) == 0);
  CHECK(int(Fp4Levels::code(-0.002f)) == 0);
  CHECK(int(Fp4Levels::code(0.002f)) == 8);
}

TEST_CASE("FP4 keeps numbers that are levels times the largest", "[base]") {
  const std::vector<float> numbers{12, 8, 6, 4, 3, 2, 0.0625f, 0, -0.0625f, -2, -3, -4, -6, -8, -12};
  const Fp4Base base(View<const float>(numbers.data(), 1, Index(numbers.size())));
  Matrix<float> found(1, Index(numbers.size()));
  base.weight(found.view());
  for (std::size_t i = 0; i < numbers.size(); ++i) CHECK(std::abs(found.elements()[i] - numbers[i]) <= 1e-6f);
}
