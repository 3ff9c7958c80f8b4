// SPDX-License-Identifier: MIT
#include "layer/composition_checks.hpp"

using namespace mole;
using support::every_composition_passes_the_gradient_check;

TEST_CASE("Every composition passes the gradient check under Simd", "[layer]") {
  SECTION("dropout, bias") {
    every_composition_passes_the_gradient_check(Simd<>{}, {.dropout = 0.3, .bias = true});
  }
  SECTION("shared down-projection") {
    every_composition_passes_the_gradient_check(Simd<>{}, {.shared_down = true});
  }
  SECTION("rank-wise") {
    every_composition_passes_the_gradient_check(Simd<>{}, {.experts = 12, .rank = 1});
  }
}
