// SPDX-License-Identifier: MIT
#include "mole/gating/score/softmax.hpp"

#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

#include <vector>

using namespace mole;

namespace {
std::vector<double> softmax(const Softmax& score, std::vector<double> logits) {
  std::vector<double> scores(logits.size());
  score.forward(std::span<const double>(logits), std::span<double>(scores));
  return scores;
}
bool near(const std::vector<double>& found, const std::vector<double>& expected) {
  for (std::size_t e = 0; e < found.size(); ++e)
    if (!(std::abs(found[e] - expected[e]) < 1e-9)) return false;
  return found.size() == expected.size();
}
}  // namespace

TEST_CASE("Softmax gives the published numbers, with and without temperature", "[gating]") {
  CHECK(near(softmax({}, {2, 1, 0, -1}),
             {0.6439142598879722, 0.23688281808991013, 0.08714431874203257, 0.03205860328008499}));
  CHECK(near(softmax({0.5}, {2, 1, 0, -1}), {0.864954877, 0.117058913, 0.015842201, 0.002144009}));
}

TEST_CASE("Softmax takes logits of any size", "[gating]") {
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(near(softmax({}, {1e4, 0, -1e4}), {1, 0, 0}));
  CHECK(near(softmax({}, {-infinity, 0, 0}), {0, 0.5, 0.5}));
  CHECK(near(softmax({}, {-infinity, -infinity}), {0, 0}));
  CHECK(near(softmax({}, {7}), {1}));
}

TEST_CASE("Softmax's gradient is its derivative", "[gating]") {
  CHECK(laws::broken_score_law(Softmax{}, {.experts = 5}) == "");
  CHECK(laws::broken_score_law(Softmax{0.3}, {.experts = 9, .tolerance = 1e-7}) == "");
}

TEMPLATE_TEST_CASE("Softmax keeps the laws of scores, in rows of vectors and in lanes", "[gating]", float, double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(Softmax{0.5}, {.experts = experts, .tolerance = 1e-7}) == "");
}

TEST_CASE("A divisor of Softmax divides probabilities, not logits", "[gating]") {
  const std::vector<double> logits{2, 1, 0, -1};
  std::vector<double> scores(4);
  Softmax{.divisor = 2}.forward(std::span<const double>(logits), std::span<double>(scores));
  const double expected[] = {0.643914 / 2, 0.236883 / 2, 0.087144 / 2, 0.032059 / 2};
  for (std::size_t e = 0; e < 4; ++e) CHECK(std::abs(scores[e] - expected[e]) < 1e-6);
  CHECK(laws::broken_score_law(Softmax{.divisor = 0.7}, {.experts = 6}) == "");
  CHECK(support::refuses(Softmax{.divisor = 0}, 4));
}

TEMPLATE_TEST_CASE("Softmax with a divisor keeps the laws of scores, in rows of vectors and in lanes", "[gating]",
                   float, double) {
  for (Index experts : {1, 3, 16, 37})
    CHECK(laws::broken_score_law<TestType>(Softmax{.divisor = 0.7}, {.experts = experts, .tolerance = 1e-7}) == "");
}
