// SPDX-License-Identifier: MIT
#include "mole/gating/score/sigmoid.hpp"

#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

TEST_CASE("Sigmoid gives the published numbers and takes logits of any size", "[gating]") {
  const std::vector<double> logits{2, 1, 0, -1, 1e4, -1e4}, expected{0.880797078, 0.731058579, 0.5, 0.268941421, 1, 0};
  std::vector<double> scores(logits.size());
  Sigmoid{}.forward(std::span<const double>(logits), std::span<double>(scores));
  for (std::size_t e = 0; e < scores.size(); ++e) CHECK(std::abs(scores[e] - expected[e]) < 1e-9);
}

TEST_CASE("Sigmoid's gradient is its derivative", "[gating]") {
  CHECK(laws::broken_score_law(Sigmoid{}, {.experts = 6}) == "");
}

TEMPLATE_TEST_CASE("Sigmoid keeps the laws of scores, in rows of vectors and in lanes", "[gating]", float, double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(Sigmoid{}, {.experts = experts, .tolerance = 1e-7}) == "");
}
