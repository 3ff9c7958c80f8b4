// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/dyn_mole.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("dyn_mole keeps two experts, or all where the entropy is high", "[method]") {
  Rng rng(1);
  auto layer = dyn_mole({.rank = 2, .entropy_threshold = 0.97}, DenseBase{weight, bias}, rng);
  CHECK(layer.experts().experts() == 6);
  CHECK(layer.gating().select.confident.min_k == 2);
  CHECK_FALSE(layer.gating().select.confident.crossing);
  CHECK(gradient_error(layer) < 1e-7);
}
