// SPDX-License-Identifier: MIT
#include "layer/composition_checks.hpp"
#include "mole/execution/through_eigen.hpp"

using namespace mole;
using support::usual_gates_pass_the_gradient_check;

TEST_CASE("Layers of twelve usual gates pass the gradient check under ThroughEigen", "[layer]") {
  usual_gates_pass_the_gradient_check(ThroughEigen{}, {.ranks = {1, 5, 2, 8}});
}
