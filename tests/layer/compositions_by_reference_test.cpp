// SPDX-License-Identifier: MIT
#include "layer/composition_checks.hpp"

using namespace mole;
using support::every_composition_passes_the_gradient_check;

TEST_CASE("Every composition passes the gradient check under Reference", "[layer]") {
  every_composition_passes_the_gradient_check(Reference{}, {});
}
