// SPDX-License-Identifier: MIT
#include "layer/composition_checks.hpp"

using namespace mole;
using support::usual_gates_pass_the_gradient_check;

TEST_CASE("Layers of twelve usual gates pass the gradient check under Reference", "[layer]") {
  usual_gates_pass_the_gradient_check(Reference{}, {});
}
