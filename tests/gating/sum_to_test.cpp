// SPDX-License-Identifier: MIT
#include "mole/gating/sum_to.hpp"

#include "support/catch.hpp"
#include "support/score_checks.hpp"

using namespace mole;

TEST_CASE("SumTo shares out its total", "[gating]") {
  const std::vector<double> sigmoids{0.880797078, 0.731058579, 0.5, 0.268941421};
  const std::vector<int> chosen{0, 1};
  std::vector<double> weights(2);
  SumTo{}.forward(std::span<const double>(sigmoids), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(std::abs(weights[0] - 0.546449103) < 1e-8);
  CHECK(std::abs(weights[1] - 0.453550897) < 1e-8);
  SumTo{2.5}.forward(std::span<const double>(sigmoids), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(std::abs(weights[0] - 1.366122758) < 1e-8);
}

TEST_CASE("SumTo of nothing is 0", "[gating]") {
  const std::vector<float> scores{0, 0, 1};
  const std::vector<int> chosen{0, 1};
  std::vector<float> weights(2, 7.0f), d_scores(3);
  SumTo{4}.forward(std::span<const float>(scores), std::span<const int>(chosen), std::span<float>(weights));
  CHECK(weights == std::vector<float>{0, 0});
  SumTo{4}.backward(std::span<const float>(scores), std::span<const int>(chosen), std::span<const float>(weights),
                    std::span<const float>(scores).first(2), std::span<float>(d_scores));
  CHECK(d_scores == std::vector<float>(3));
}

TEST_CASE("SumTo's gradient is its derivative", "[gating]") {
  CHECK(support::weigh_gradient_error(SumTo{2.5}, 6, {4, 1, 5}) < 1e-8);
  CHECK(support::weigh_gradient_error(SumTo{3}, 3, {2}) < 1e-8);
}
