// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/unit.hpp"

#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"

TEST_CASE("Unit's weights are one and pass no gradient", "[gating]") {
  const std::vector<double> scores{0.1, 0.2, 0.7};
  const std::vector<int> chosen{2, 0};
  std::vector<double> weights(2);
  mole::Unit{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(weights == std::vector<double>{1, 1});
  CHECK(mole::laws::broken_weigh_law(mole::Unit{}, {.columns = 5, .chosen = {3, 1}, .tolerance = 1e-300}) == "");
}
