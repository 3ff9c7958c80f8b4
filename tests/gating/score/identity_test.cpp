// SPDX-License-Identifier: MIT
#include "mole/gating/score/identity.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"

using namespace mole;

TEST_CASE("Identity's scores are the logits, and its gradient passes", "[gating]") {
  const std::vector<double> logits{2, -1, 0.5};
  std::vector<double> scores(3);
  Identity{}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(scores == logits);
  CHECK(support::score_gradient_error(Identity{}, 4) < 1e-8);
}
