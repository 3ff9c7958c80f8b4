// SPDX-License-Identifier: MIT
#include "layer/composition_checks.hpp"

using namespace mole;
using support::usual_gates_pass_the_gradient_check;

TEST_CASE("Layers of twelve usual gates pass the gradient check under Simd", "[layer]") {
  SECTION("dropout, bias") {
    usual_gates_pass_the_gradient_check(Simd<>{}, {.dropout = 0.3, .bias = true});
  }
  SECTION("shared down-projection") {
    usual_gates_pass_the_gradient_check(Simd<>{}, {.shared_down = true});
  }
  SECTION("rank-wise") {
    usual_gates_pass_the_gradient_check(Simd<>{}, {.experts = 12, .rank = 1});
  }
}
