// SPDX-License-Identifier: MIT
#include "mole/gating/score/sparsegen.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/seed.hpp"
#include "support/selected.hpp"

#include <cmath>
#include <numeric>
#include <type_traits>

using namespace mole;

namespace {

std::vector<double> sparsegen(double lambda, const std::vector<double>& logits) {
  std::vector<double> scores(logits.size());
  Sparsegen{lambda}.forward(std::span<const double>(logits), std::span<double>(scores));
  return scores;
}

/// By the definition: sort, and count how many stay.
std::vector<double> by_definition(double lambda, const std::vector<double>& logits) {
  std::vector<double> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  double sum = 0, kept_sum = 0;
  std::size_t kept = 0;
  for (std::size_t j = 0; j < sorted.size(); ++j) {
    sum += sorted[j];
    if (1 - lambda + double(j + 1) * sorted[j] > sum) kept = j + 1, kept_sum = sum;
  }
  const double tau = (kept_sum - 1 + lambda) / double(kept);
  std::vector<double> scores;
  for (double logit : logits) scores.push_back(std::max(logit - tau, 0.0) / (1 - lambda));
  return scores;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

}  // namespace

TEST_CASE("Sparsegen gives the published numbers", "[gating]") {
  const std::vector<double> logits{0.8, 0.5, 0.3, -0.2};
  CHECK(largest_difference(sparsegen(0, logits), {0.6, 0.3, 0.1, 0}) < 1e-15);
  CHECK(largest_difference(sparsegen(0.5, logits), {0.8, 0.2, 0, 0}) < 1e-15);
  CHECK(largest_difference(sparsegen(-1, logits), {0.466667, 0.316667, 0.216667, 0}) < 1e-6);
}

TEST_CASE("Sparsegen equals its definition", "[gating]") {
  test::TestRng rng;
  for (Index experts : {1, 2, 3, 7, 8, 64, 129})
    for (double lambda : {-100.0, -1.0, 0.0, 0.5, 0.99})
      for (double bound : {0.1, 1.0, 10.0}) {
        const auto logits = support::random_matrix<double>(1, experts, rng(), bound);
        const std::vector<double> row(logits.elements().begin(), logits.elements().end());
        const auto scores = sparsegen(lambda, row);
        CAPTURE(experts, lambda, bound);
        CHECK(largest_difference(scores, by_definition(lambda, row)) < 1e-12);
        CHECK(std::abs(std::accumulate(scores.begin(), scores.end(), 0.0) - 1) < 1e-12);
      }
}

TEST_CASE("Sparsegen takes infinite and huge logits", "[gating]") {
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(sparsegen(0, {-infinity, -infinity}) == std::vector<double>{0, 0});
  CHECK(sparsegen(0, {-infinity, 3}) == std::vector<double>{0, 1});
  CHECK(sparsegen(0, {1e4, 1e4, -1e4}) == std::vector<double>{0.5, 0.5, 0});
  CHECK(support::refuses(Sparsegen{1}, 4));
}

TEST_CASE("Sparsegen's gradients are derivatives", "[gating]") {
  for (double lambda : {-2.0, 0.0, 0.6})
    CHECK(laws::broken_score_law(Sparsegen{lambda}, {.experts = 7, .bound = 0.7}) == "");
}

TEMPLATE_TEST_CASE("Sparsegen ends where an expert's logit is the threshold of the others", "[gating]", float, double) {
  // Found by a search: with the last expert tau falls by a rounding below its logit, without it tau rises to it.
  struct Found {
    double spread;
    std::vector<double> logits;
  };
  const Found found = std::is_same_v<TestType, float> ? Found{0.504409015, {1.01526296, -0.416111588, 0.510854006}}
                                                      : Found{0.0564444889, {-0.86381862, 2.5283257, 2.47188121}};
  std::vector<TestType> logits(found.logits.begin(), found.logits.end()), scores(3);
  for (int ulps = -3; ulps <= 3; ++ulps) {
    TestType& last = logits.back();
    last = TestType(found.logits.back());
    for (int i = 0; i < std::abs(ulps); ++i) last = std::nextafter(last, TestType(ulps < 0 ? -9 : 9));
    Sparsegen{1 - found.spread}.forward(std::span<const TestType>(logits), std::span<TestType>(scores));
    CHECK(std::abs(double(scores[0] + scores[1] + scores[2]) - 1) < 1e-6);
  }
}

TEMPLATE_TEST_CASE("A gate of sparse scores keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 8, 129);
  CHECK(laws::broken_gating_law<TestType>(Gate{Sparsegen{}, Threshold{.threshold = 0, .strict = true}, Raw{}},
                                          experts) == "");
}
