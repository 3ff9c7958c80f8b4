// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/renormalized.hpp"

#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"

using mole::Renormalized;

namespace {
std::vector<double> weights(const std::vector<double>& scores, const std::vector<int>& chosen) {
  std::vector<double> result(chosen.size());
  Renormalized{}.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(result));
  return result;
}
}  // namespace

TEST_CASE("Renormalized's weights sum to one over the chosen", "[gating]") {
  const auto w = weights({0.5, 0.2, 0.3}, {0, 2});
  CHECK(std::abs(w[0] - 0.625) < 1e-15);
  CHECK(std::abs(w[1] - 0.375) < 1e-15);
}

TEST_CASE("Renormalized gives zero, not NaN, where the chosen scores are all zero", "[gating]") {
  CHECK(weights({0, 0, 1}, {0, 1}) == std::vector<double>{0, 0});
  CHECK(weights({0, 0, 1}, {}).empty());
}

TEST_CASE("Renormalized leaves excluded experts out of its sum", "[gating]") {
  const double excluded = -std::numeric_limits<double>::infinity();
  CHECK(weights({excluded, 0.5, 0.3, 1.5}, {0, 1, 3}) == std::vector<double>{0, 0.25, 0.75});
}

TEST_CASE("Renormalized of one expert is exactly one", "[gating]") {
  CHECK(weights({0.3, 0.1}, {1}) == std::vector<double>{1});
}

TEST_CASE("Renormalized's gradient is its derivative", "[gating]") {
  CHECK(mole::laws::broken_weigh_law(Renormalized{}, {.columns = 6, .chosen = {4, 0, 1}, .tolerance = 1e-7}) == "");
  CHECK(mole::laws::broken_weigh_law(Renormalized{}, {.columns = 4, .chosen = {2}}) == "");
}

TEST_CASE("Renormalized sums to any constant", "[gating]") {
  const std::vector<double> sigmoids{0.880797078, 0.731058579, 0.5, 0.268941421};
  const std::vector<int> chosen{0, 1};
  std::vector<double> weights(2);
  Renormalized{}.forward(std::span<const double>(sigmoids), std::span<const int>(chosen), std::span<double>(weights));
  CHECK(std::abs(weights[0] - 0.546449103) < 1e-8);
  CHECK(std::abs(weights[1] - 0.453550897) < 1e-8);
  Renormalized{2.5}.forward(std::span<const double>(sigmoids), std::span<const int>(chosen),
                            std::span<double>(weights));
  CHECK(std::abs(weights[0] - 1.366122758) < 1e-8);
}

TEST_CASE("Renormalized of scores of zero is zero for any constant, and passes no gradient", "[gating]") {
  const std::vector<float> scores{0, 0, 1};
  const std::vector<int> chosen{0, 1};
  std::vector<float> weights(2, 7.0f), d_scores(3);
  Renormalized{4}.forward(std::span<const float>(scores), std::span<const int>(chosen), std::span<float>(weights));
  CHECK(weights == std::vector<float>{0, 0});
  Renormalized{4}.backward(std::span<const float>(scores), std::span<const int>(chosen),
                           std::span<const float>(weights), std::span<const float>(scores).first(2),
                           std::span<float>(d_scores));
  CHECK(d_scores == std::vector<float>(3));
}

TEST_CASE("Renormalized's gradient is its derivative for any constant", "[gating]") {
  CHECK(mole::laws::broken_weigh_law(Renormalized{2.5}, {.columns = 6, .chosen = {4, 1, 5}}) == "");
  CHECK(mole::laws::broken_weigh_law(Renormalized{3}, {.columns = 3, .chosen = {2}}) == "");
}
