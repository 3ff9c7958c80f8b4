// SPDX-License-Identifier: MIT
#include "mole/base/q4_base.hpp"

#include "support/coded_base_checks.hpp"

#include <cmath>

using namespace mole;
using namespace mole::test;

TEST_CASE("Q4Base does what every coded base does", "[base]") {
  check_coded_base<Q4Base>();
  check_coded_base<Q4Base>({.block = 32});
}

TEST_CASE("Q4 keeps the number of the largest magnitude, whatever its sign", "[base]") {
  for (const float largest : {3.5f, -3.5f}) {
    const std::vector<float> numbers{1, -1, largest, 0.25f};
    const Q4Base base(View<const float>(numbers.data(), 1, 4));
    Matrix<float> found(1, 4);
    base.weight(found.view());
    CHECK(found(0, 2) == largest);
    for (Index i = 0; i < 4; ++i) CHECK(std::abs(found(0, i) - numbers[std::size_t(i)]) <= 3.5f / 16);
  }
}

TEST_CASE("Q4 takes the nearest level; a tie goes to the upper, and nothing beyond the last", "[base]") {
  for (int code = 0; code < 15; ++code) {
    const float middle = (float(code) - 7.5f) / 8;
    CAPTURE(code);
    CHECK(int(Q4Levels::code(Q4Levels::levels[std::size_t(code)])) == code);
    CHECK(int(Q4Levels::code(middle - 1e-6f)) == code);
    CHECK(int(Q4Levels::code(middle)) == code + 1);
  }
  CHECK(int(Q4Levels::code(1)) == 15);
}
