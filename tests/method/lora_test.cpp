// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/lora.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("lora scales by alpha over rank, or over its root", "[method]") {
  Rng rng(1);
  CHECK(lora({.rank = 4, .alpha = 8}, DenseBase{weight}, rng).experts().scale()[0] == 2);
  CHECK(lora({.rank = 4, .alpha = 8, .scaling = Scaling::alpha_over_sqrt_rank}, DenseBase{weight}, rng)
            .experts()
            .scale()[0] == 4);
  CHECK(merge_obstacle(lora({}, DenseBase{weight}, rng)).empty());
  CHECK(gradient_error(lora({.dropout = 0.2}, DenseBase{weight, bias}, rng)) < 1e-8);
}
