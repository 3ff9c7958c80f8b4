// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/expert_choice.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("expert_choice loads all experts alike", "[method]") {
  Rng rng(1);
  auto layer = expert_choice({.experts = 5, .rank = 2, .factor = 1.5}, DenseBase{weight, bias}, rng);
  auto work = layer.workspace(40);
  layer.route(tokens, work);
  for (Index e = 0; e < 5; ++e) CHECK(work.routing.load(e) == 12);
  CHECK(gradient_error(layer) < 1e-7);
}
