// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/ld_mole.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("ld_mole's weights sum to 1, and lambda learns", "[method]") {
  Rng rng(1);
  auto layer = ld_mole({.experts = 6, .rank = 2, .hidden = 5}, DenseBase{weight, bias}, rng);
  CHECK(layer.router().second().in() == 11);
  CHECK(gradient_error(layer) < 1e-7);
  const auto x = support::random_matrix<double>(50, 11, 3, 2);
  auto work = layer.workspace(50);
  layer.route(x, work);
  for (Index n = 0; n < 50; ++n) {
    double sum = 0;
    for (double w : work.routing.gates_of(n)) sum += w;
    CHECK(std::abs(sum - 1) < 1e-12);
  }
}
