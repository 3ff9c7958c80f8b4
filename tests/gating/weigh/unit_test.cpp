// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/unit.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"

TEST_CASE("Unit's weights are one and pass no gradient", "[gating]") {
  const std::vector<double> scores{0.1, 0.2, 0.7};
  const std::vector<int> chosen{2, 0};
  std::vector<double> weights(2);
  mole::Unit{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(weights == std::vector<double>{1, 1});
  CHECK(support::weigh_gradient_error(mole::Unit{}, 5, {3, 1}) == 0);
}
