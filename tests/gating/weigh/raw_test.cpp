// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/raw.hpp"

#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"

TEST_CASE("Raw's weights are the chosen scores, and its gradient is its derivative", "[gating]") {
  const std::vector<double> scores{0.1, 0.2, 0.7};
  const std::vector<int> chosen{2, 0};
  std::vector<double> weights(2);
  mole::Raw{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(weights == std::vector<double>{0.7, 0.1});
  CHECK(mole::laws::broken_weigh_law(mole::Raw{}, {.columns = 5, .chosen = {3, 1}}) == "");
}
