// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/straight_through.hpp"

#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"

#include <vector>

using namespace mole;

TEST_CASE("StraightThrough weighs 1 and hands the gradient to the scores", "[gating]") {
  const std::vector<float> scores{0.25f, 0.5f, 0.25f}, d_gates{3, -2};
  const std::vector<int> chosen{2, 0};
  std::vector<float> weights(2), d_scores(3, 1.0f);
  StraightThrough{}.forward(std::span<const float>(scores), std::span<const int>(chosen), std::span<float>(weights));
  CHECK(weights == std::vector<float>{1, 1});
  StraightThrough{}.backward(std::span<const float>(scores), std::span<const int>(chosen),
                             std::span<const float>(weights), std::span<const float>(d_gates),
                             std::span<float>(d_scores));
  CHECK(d_scores == std::vector<float>{-1, 1, 4});
}

TEST_CASE("StraightThrough keeps the laws of weighings, with the gradient of another", "[gating]") {
  CHECK(laws::broken_weigh_law(StraightThrough{}, {.gradient_is_derivative = false}) == "");
}
