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

TEST_CASE("Raw adds its offset to the gates of experts that are not excluded", "[gating]") {
  const std::vector<double> scores{-0.25, 2, -std::numeric_limits<double>::infinity(), 0};
  const std::vector<int> chosen{1, 0, 2, 3};
  std::vector<double> weights(4);
  const mole::Raw one_more{.scale = 0.5, .offset = 1};
  one_more.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(weights == std::vector<double>{2, 0.875, 0, 1});
  CHECK(mole::laws::broken_weigh_law(one_more) == "");
  CHECK_THROWS_AS(mole::Raw{.offset = std::numeric_limits<double>::infinity()}.check(4), mole::Error);
  CHECK_THROWS_AS((mole::Raw{.offset = 1e31}.check(4)), mole::Error);
}
