// SPDX-License-Identifier: MIT
#include "mole/gating/score/identity.hpp"

#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"

using namespace mole;

TEST_CASE("Identity's scores are the logits, and its gradient passes", "[gating]") {
  const std::vector<double> logits{2, -1, 0.5};
  std::vector<double> scores(3);
  Identity{}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(scores == logits);
  CHECK(laws::broken_score_law(Identity{}, {.experts = 4}) == "");
}

TEMPLATE_TEST_CASE("Identity keeps the laws of scores, in rows of vectors and in lanes", "[gating]", float, double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(Identity{}, {.experts = experts, .tolerance = 1e-7}) == "");
}
