// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/loramoe.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("loramoe mixes all, with a shared down-projection if wanted", "[method]") {
  Rng rng(1);
  CHECK(gradient_error(loramoe({}, DenseBase{weight}, rng)) < 1e-8);
  auto hydra = loramoe({.experts = 3, .rank = 4, .shared_down = true}, DenseBase{weight}, rng);
  CHECK(hydra.experts().parameters().lora_A.rows() == 4);
  CHECK(gradient_error(hydra) < 1e-8);
}
