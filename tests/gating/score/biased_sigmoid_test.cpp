// SPDX-License-Identifier: MIT
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("BiasedSigmoid adds a bias that has no part in its gradient", "[gating]") {
  BiasedSigmoid<double> score(4);
  score.bias = {0.5, 0, -1, 0};
  std::vector<double> scores(4);
  score.forward(std::span<const double>(std::vector<double>{2, 1, 0, -1}), std::span<double>(scores));
  const double expected[] = {1.380797078, 0.731058579, -0.5, 0.268941421};
  for (std::size_t e = 0; e < 4; ++e) CHECK(std::abs(scores[e] - expected[e]) < 1e-9);
  CHECK(laws::broken_score_law(score, {.experts = 4, .excludes = false}) == "");
  CHECK(support::refuses(score, 5));
}

TEST_CASE("BiasedSigmoid keeps the laws of scores, but an excluded expert has its bias", "[gating]") {
  BiasedSigmoid<double> score(3);
  CHECK(laws::broken_score_law(score, {.experts = 3}) == "");
  score.bias = {0.2, 0, 0.1};
  CHECK(laws::broken_score_law(score, {.experts = 3, .excludes = false}) == "");
}

TEST_CASE("A bias that is no number is refused: it would exclude an expert by half", "[gating]") {
  for (double bias : {-std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    BiasedSigmoid<double> score(3);
    score.bias = {0, bias, 0};
    CHECK_THROWS_AS(score.check(3), Error);
  }
}
