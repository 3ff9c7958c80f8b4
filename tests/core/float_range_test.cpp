// SPDX-License-Identifier: MIT
#include "mole/core/float_range.hpp"

#include "support/catch.hpp"

#include <limits>

using mole::in_float_range;

TEST_CASE("Options of an ordinary size, whatever their sign, are in the range of float", "[core]") {
  for (double option : {1e-30, 1.0, 1e30, -1e-30, -1.0, -1e30}) CHECK(in_float_range(option));
  for (double option : {0.0, 0.9e-30, 1.1e30, -0.9e-30, -1.1e30, std::numeric_limits<double>::infinity(),
                        std::numeric_limits<double>::quiet_NaN()})
    CHECK_FALSE(in_float_range(option));
}
