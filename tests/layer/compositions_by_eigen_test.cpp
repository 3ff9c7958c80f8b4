// SPDX-License-Identifier: MIT
#include "layer/composition_checks.hpp"
#include "mole/execution/through_eigen.hpp"

using namespace mole;
using support::every_composition_passes_the_gradient_check;

TEST_CASE("Every composition passes the gradient check under ThroughEigen", "[layer]") {
  every_composition_passes_the_gradient_check(ThroughEigen{}, {.ranks = {1, 5, 2, 8}});
}
