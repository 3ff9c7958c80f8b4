// SPDX-License-Identifier: MIT
#include "mole/gating/score/divided_softmax.hpp"

#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("DividedSoftmax divides probabilities, not logits", "[gating]") {
  const std::vector<double> logits{2, 1, 0, -1};
  std::vector<double> scores(4);
  DividedSoftmax{2}.forward(std::span<const double>(logits), std::span<double>(scores));
  const double expected[] = {0.643914 / 2, 0.236883 / 2, 0.087144 / 2, 0.032059 / 2};
  for (std::size_t e = 0; e < 4; ++e) CHECK(std::abs(scores[e] - expected[e]) < 1e-6);
  CHECK(laws::broken_score_law(DividedSoftmax{0.7}, {.experts = 6}) == "");
  CHECK(support::refuses(DividedSoftmax{0}, 4));
}

TEMPLATE_TEST_CASE("DividedSoftmax keeps the laws of scores, in rows of vectors and in lanes", "[gating]", float,
                   double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(DividedSoftmax{0.7}, {.experts = experts, .tolerance = 1e-7}) == "");
}
