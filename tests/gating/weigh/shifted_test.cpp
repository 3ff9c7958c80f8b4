// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/shifted.hpp"

#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

TEST_CASE("Shifted weighs what is above the threshold", "[gating]") {
  const std::vector<double> scores{0.5, 0.125, 0.375, 0.25};  // the last is the threshold
  const std::vector<int> chosen{0, 2};
  std::vector<double> weights(2);
  Shifted{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(std::abs(weights[0] - 2.0 / 3) < 1e-15);
  CHECK(std::abs(weights[1] - 1.0 / 3) < 1e-15);
}

TEST_CASE("Shifted gives 0 to whoever is exactly at the threshold, alone", "[gating]") {
  const std::vector<double> scores{0.25, 0.25};
  const std::vector<int> chosen{0};
  std::vector<double> weights(1, 7.0), d_scores(2);
  Shifted{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(weights[0] == 0);
  Shifted{}.backward(std::span<const double>(scores), std::span<const int>(chosen), std::span<const double>(weights),
                     std::span<const double>(scores).first(1), std::span<double>(d_scores));
  CHECK(d_scores == std::vector<double>(2));
}

TEST_CASE("Shifted's gradient reaches the threshold", "[gating]") {
  CHECK(laws::broken_weigh_law(Shifted{}, {.columns = 6, .chosen = {4, 1, 0}, .tolerance = 1e-7}) == "");
}
