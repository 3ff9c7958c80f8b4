// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/ada_mole.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("ada_mole keeps somebody for every token, and its threshold learns", "[method]") {
  Rng rng(1);
  auto layer = ada_mole({.experts = 6, .rank = 2}, DenseBase{weight, bias}, rng);
  CHECK(layer.router().outputs() == 7);
  CHECK(gradient_error(layer) < 1e-7);
  const auto x = support::random_matrix<double>(200, 11, 3, 5);
  auto work = layer.workspace(200);
  layer.route(x, work);
  for (Index n = 0; n < 200; ++n) CHECK_FALSE(work.routing.experts_of(n).empty());
}
