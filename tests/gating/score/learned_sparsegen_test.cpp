// SPDX-License-Identifier: MIT
#include "mole/gating/score/learned_sparsegen.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("LearnedSparsegen's lambda stays below 1", "[gating]") {
  std::vector<double> scores(3);
  for (double logit : {-800.0, -3.0, 0.0, 3.0, 800.0}) {
    LearnedSparsegen{}.forward(std::span<const double>(std::vector<double>{0.25, 0.5, logit}),
                               std::span<double>(scores));
    CHECK(scores[2] <= 0.99);
    CHECK(std::abs(scores[0] + scores[1] - 1) < 1e-12);
  }
  CHECK(support::refuses(LearnedSparsegen{0}, 4));
}

TEST_CASE("LearnedSparsegen's gradients are derivatives, its lambda's too", "[gating]") {
  CHECK(laws::broken_score_law(LearnedSparsegen{}, {.experts = 7, .bound = 0.7}) == "");
  CHECK(laws::broken_score_law(LearnedSparsegen{0.2}, {.experts = 3, .bound = 0.4}) == "");
}

TEMPLATE_TEST_CASE("A gate of learned sparsity keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 8, 129);
  CHECK(laws::broken_gating_law<TestType>(Gate{LearnedSparsegen{}, Threshold{.threshold = 0, .strict = true}, Raw{}},
                                          experts) == "");
}
