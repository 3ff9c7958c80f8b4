// SPDX-License-Identifier: MIT
#include "mole/gating/score/magnitude.hpp"

#include "mole/execution/simd.hpp"
#include "mole/gating/score/score_rows.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEST_CASE("Magnitude's scores are the logits without their signs", "[gating]") {
  const std::vector<double> logits{2, -1, 0.5, -0.0};
  std::vector<double> scores(4);
  Magnitude{}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(scores == std::vector<double>{2, 1, 0.5, 0});
}

TEST_CASE("Magnitude's gradient is its derivative, and 0 at 0", "[gating]") {
  CHECK(laws::broken_score_law(Magnitude{}, {.experts = 6}) == "");
  const std::vector<double> logits{0, -3}, scores{0, 3}, d_scores{5, 7};
  std::vector<double> d_logits{1, 1};
  Magnitude{}.backward(std::span<const double>(logits), std::span<const double>(scores),
                       std::span<const double>(d_scores), std::span<double>(d_logits));
  CHECK(d_logits == std::vector<double>{1, -6});
}

TEST_CASE("Magnitude that keeps the sign is the logit", "[gating]") {
  const std::vector<double> logits{2, -1, 0};
  std::vector<double> scores(3);
  Magnitude{.keep_sign = true}.forward(std::span<const double>(logits), std::span<double>(scores));
  CHECK(scores == logits);
  CHECK(laws::broken_score_law(Magnitude{.keep_sign = true}, {.experts = 6}) == "");
}

TEMPLATE_TEST_CASE("Magnitude has the same bits with vectors", "[gating]", float, double) {
  using T = TestType;
  const Magnitude score{.keep_sign = GENERATE(false, true)};
  for (Index experts : {3, 16, 37}) {
    auto logits = support::random_matrix<T>(9, experts, 1);
    logits(4, 1) = 0;
    const auto d_scores = support::random_matrix<T>(9, experts, 2);
    const auto both = [&](auto rows) {
      Matrix<T> scores(9, experts), d_logits(9, experts);
      std::vector<unsigned char> nan(9);
      rows.forward(score, View<const T>(logits), scores.view(), std::span(nan));
      rows.backward(score, View<const T>(logits), View<const T>(scores), View<const T>(d_scores), d_logits.view());
      return std::pair(scores, d_logits);
    };
    const auto plain = both(ScoreRows<void>{});
    for (const auto& vectors : {both(ScoreRows<kernel::DefaultArchitecture>{}), both(ScoreRows<kernel::Scalar>{})}) {
      CHECK(support::same_bits(plain.first, vectors.first));
      CHECK(support::same_bits(plain.second, vectors.second));
    }
  }
}

TEMPLATE_TEST_CASE("Magnitude keeps the laws of scores, in rows of vectors and in lanes", "[gating]", float, double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(Magnitude{}, {.experts = experts, .tolerance = 1e-7}) == "");
}
