// SPDX-License-Identifier: MIT
#include "mole/core/rank/scaling.hpp"

#include "support/catch.hpp"

using namespace mole;

TEST_CASE("A scale follows from alpha and the rank", "[core]") {
  CHECK(scale_of(32, 16, Scaling::alpha_over_rank) == 2);
  CHECK(scale_of(32, 16, Scaling::alpha_over_sqrt_rank) == 8);
  CHECK(scale_of(32, 16, Scaling::fixed) == 32);
}

TEST_CASE("An expert without ranks has the scale 0", "[core]") {
  for (Scaling scaling : {Scaling::alpha_over_rank, Scaling::alpha_over_sqrt_rank, Scaling::fixed})
    CHECK(scale_of(32, 0, scaling) == 0);
}
