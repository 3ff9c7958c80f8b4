// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/dynamic_moe.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("dynamic_moe keeps experts until their probabilities pass p, unscaled", "[method]") {
  Rng rng(1);
  auto layer = dynamic_moe<double>({.in = 11, .out = 13, .experts = 6, .rank = 2, .p = 0.6}, weight, rng, bias);
  CHECK(layer.gating().select.p == 0.6);
  CHECK(layer.gating().select.crossing);
  CHECK(layer.gating().select.strict);
  CHECK(gradient_error(layer) < 1e-7);
}
