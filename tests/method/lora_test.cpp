// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/lora.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("lora scales by alpha over rank, or over its root", "[method]") {
  Rng rng(1);
  CHECK(lora<double>({.in = 11, .out = 13, .rank = 4, .alpha = 8}, weight, rng).experts().scale()[0] == 2);
  CHECK(
      lora<double>({.in = 11, .out = 13, .rank = 4, .alpha = 8, .scaling = Scaling::alpha_over_sqrt_rank}, weight, rng)
          .experts()
          .scale()[0] == 4);
  CHECK(lora<double>({.in = 11, .out = 13}, weight, rng).merge_obstacle().empty());
  CHECK(gradient_error(lora<double>({.in = 11, .out = 13, .dropout = 0.2}, weight, rng, bias)) < 1e-8);
}
