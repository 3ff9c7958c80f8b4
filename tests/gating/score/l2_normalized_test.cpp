// SPDX-License-Identifier: MIT
#include "mole/gating/score/l2_normalized.hpp"

#include "mole/execution/simd.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/score_rows.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/softmax_over_chosen.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/tolerance.hpp"

using namespace mole;

namespace {

std::vector<double> scores_of(const std::vector<double>& logits, const L2Normalized& score = {}) {
  std::vector<double> scores(logits.size());
  score.forward(std::span<const double>(logits), std::span<double>(scores));
  return scores;
}
std::vector<double> gradient_of(const std::vector<double>& logits, const std::vector<double>& d_scores,
                                const L2Normalized& score = {}) {
  const auto scores = scores_of(logits, score);
  std::vector<double> d_logits(logits.size());
  score.backward(std::span<const double>(logits), std::span<const double>(scores), std::span<const double>(d_scores),
                 std::span<double>(d_logits));
  return d_logits;
}

constexpr double unlimited = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE("L2Normalized's scores have length one and the direction of the logits", "[gating]") {
  CHECK(scores_of({3, -4}) == std::vector<double>{0.6, -0.8});
  CHECK(scores_of({3e20, -4e20}) == std::vector<double>{0.6, -0.8});
  CHECK(scores_of({3, -4}, {.eps = 10}) == std::vector<double>{0.3, -0.4});
}

TEST_CASE("L2Normalized's gradient is its derivative, above eps and below", "[gating]") {
  CHECK(laws::broken_score_law(L2Normalized{}, {.experts = 1}) == "");
  CHECK(laws::broken_score_law(L2Normalized{}, {.experts = 7}) == "");
  CHECK(laws::broken_score_law(L2Normalized{.eps = 100}, {.experts = 7}) == "");
}

TEST_CASE("A row of zeros has scores of zero and gives no gradient", "[gating]") {
  CHECK(scores_of({0, 0, 0}) == std::vector<double>{0, 0, 0});
  CHECK(gradient_of({0, 0, 0}, {1, -2, 3}) == std::vector<double>{0, 0, 0});
}

TEST_CASE("A logit of minus infinity has no part in the others", "[gating]") {
  const auto without = scores_of({3, 1}), with = scores_of({3, -unlimited, 1});
  CHECK(with == std::vector<double>{without[0], -unlimited, without[1]});
  const auto d_without = gradient_of({3, 1}, {2, 5}), d_with = gradient_of({3, -unlimited, 1}, {2, 7, 5});
  CHECK(d_with == std::vector<double>{d_without[0], 0, d_without[1]});
  CHECK(gradient_of({-unlimited, -unlimited}, {2, 7}) == std::vector<double>{0, 0});
}

TEST_CASE("L2Normalized refuses an eps by which no float can be divided", "[gating]") {
  CHECK_THROWS_AS(L2Normalized{.eps = 0}.check(4), Error);
  CHECK_THROWS_AS(L2Normalized{.eps = 1e-40}.check(4), Error);  // 0 in float
  CHECK_THROWS_AS(L2Normalized{.eps = unlimited}.check(4), Error);
  CHECK_THROWS_AS(L2Normalized{.eps = std::nan("")}.check(4), Error);
}

TEMPLATE_TEST_CASE("L2Normalized is the same with vectors up to rounding", "[gating]", float, double) {
  using T = TestType;
  using Arch = kernel::DefaultArchitecture;
  static_assert(LoopedScorePolicy<L2Normalized, kernel::Vector<Arch, T>>);
  static_assert(LoopedScorePolicy<L2Normalized, T, kernel::VectorLoops<Arch>>);
  const Index tokens = 11;
  for (Index experts : {1, 2, 3, 7, 8, 16, 17, 37}) {
    auto logits = support::random_matrix<T>(tokens, experts, 1);
    fill(logits.view().middle_rows(2, 1), T(0));
    logits(3, 0) = -std::numeric_limits<T>::infinity();
    fill(logits.view().middle_rows(4, 1), -std::numeric_limits<T>::infinity());
    const auto d_scores = support::random_matrix<T>(tokens, experts, 2);
    const auto both = [&](auto rows) {
      Matrix<T> scores(tokens, experts), d_logits(tokens, experts);
      std::vector<unsigned char> nan(std::size_t(tokens), 9);
      rows.forward(L2Normalized{}, View<const T>(logits), scores.view(), std::span(nan));
      rows.backward(L2Normalized{}, View<const T>(logits), View<const T>(scores), View<const T>(d_scores),
                    d_logits.view());
      CHECK(std::ranges::none_of(nan, [&](unsigned char found) { return (found & rows.nan) != 0; }));
      for (T& score : scores.elements()) score = std::max(score, T(-2));  // infinities have no difference
      return std::pair(scores, d_logits);
    };
    const auto plain = both(ScoreRows<void>{});
    CAPTURE(experts);
    CHECK(support::all_finite(std::as_const(plain.second).elements()));
    for (const auto& vectors : {both(ScoreRows<Arch>{}), both(ScoreRows<kernel::Scalar>{})}) {
      CHECK(support::largest_difference(plain.first, vectors.first) <= test::Tolerance<T>::sum(experts));
      CHECK(support::largest_difference(plain.second, vectors.second) <= 100 * test::Tolerance<T>::sum(experts));
    }
  }
}

TEMPLATE_TEST_CASE("A gate over normalized scores keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 3, 8, 129);
  const Index k = std::min<Index>(experts, GENERATE(1, 2, 8));
  const Gate gate{L2Normalized{}, TopK{k}, SoftmaxOverChosen{.temperature = 0.05, .min_score = 0.1}};
  CHECK(laws::broken_gating_law<TestType>(gate, experts) == "");
  CHECK(laws::broken_gating_law<TestType, Simd<>>(gate, experts) == "");
}

TEMPLATE_TEST_CASE("L2Normalized keeps the laws of scores, in rows of vectors and in lanes", "[gating]", float,
                   double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(L2Normalized{}, {.experts = experts, .tolerance = 1e-7}) == "");
}
