// SPDX-License-Identifier: MIT
// The golden files pin MNR and MNR+; here is what they do not say.
#include "mole/loss/negatives_ranking.hpp"

#include "core/error_code.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("N pairs that are all the same cost log N", "[loss]") {
  Matrix<double> a(5, 3);
  fill(a.view(), 0.4);
  for (const NegativesRankingOptions& options : {NegativesRankingOptions{},
                                                 {.both_ways = true},
                                                 {.normalized = true},
                                                 {.temperature = 0.1},
                                                 {.target = RankingTarget::most_similar, .both_ways = true}})
    CHECK(std::abs(negatives_ranking<double>(a, a, {}, {}, options) - std::log(5)) < 1e-14);
  CHECK(negatives_ranking<double>(Matrix<double>(0, 3), Matrix<double>(0, 3), {}, {}) == 0);
  CHECK(negatives_ranking<double>(Matrix<double>(1, 3), Matrix<double>(1, 3), {}, {}) == 0);
}

TEST_CASE("negatives_ranking adds the gradients of its value, in every form", "[loss]") {
  auto a = laws::random_matrix<double>(5, 4, 1), b = laws::random_matrix<double>(5, 4, 2);
  for (RankingTarget target : {RankingTarget::own_pair, RankingTarget::most_similar})
    for (bool both : {false, true})
      for (bool normalized : {false, true}) {
        CAPTURE(int(target), both, normalized);
        const NegativesRankingOptions options{
            .coefficient = 0.7, .target = target, .both_ways = both, .normalized = normalized, .temperature = 0.4};
        Matrix<double> d_a(5, 4), d_b(5, 4);
        negatives_ranking<double>(a, b, d_a, d_b, options);
        const auto value = [&] { return negatives_ranking<double>(a, b, {}, {}, options); };
        CHECK(gradient_error(a.elements(), d_a.elements(), value) < gradient_tolerance);
        CHECK(gradient_error(b.elements(), d_b.elements(), value) < gradient_tolerance);
        const Matrix<double> once = d_a;
        negatives_ranking<double>(a, b, d_a, {}, options);
        for (std::size_t i = 0; i < 20; ++i) CHECK(std::abs(d_a.elements()[i] - 2 * once.elements()[i]) < 1e-14);
      }
}

TEST_CASE("Both ways, the sides of the pairs may be exchanged", "[loss]") {
  const auto a = laws::random_matrix<double>(6, 4, 1), b = laws::random_matrix<double>(6, 4, 2);
  const NegativesRankingOptions options{.both_ways = true};
  CHECK(std::abs(negatives_ranking<double>(a, b, {}, {}, options) - negatives_ranking<double>(b, a, {}, {}, options)) <
        1e-14);
}

TEST_CASE("A long embedding draws the targets of others, unless lengths are taken off", "[loss]") {
  Matrix<double> a(2, 2), b(2, 2);
  a(0, 0) = b(0, 0) = 1, a(1, 0) = a(1, 1) = b(1, 0) = b(1, 1) = 5;  // pair 1 is long
  const NegativesRankingOptions mnr_plus{.target = RankingTarget::most_similar, .both_ways = true};
  // Similarities (1, 5) and (5, 50): row 0 chooses pair 1; column 0 keeps its own, as row 1 has eyes for itself alone.
  const double chosen = std::log1p(std::exp(1 - 5)), own = std::log1p(std::exp(5 - 1));
  CHECK(std::abs(negatives_ranking<double>(a, b, {}, {}, mnr_plus) - (chosen + own) / 4) < 1e-14);
  CHECK(std::abs(negatives_ranking<double>(a, b, {}, {}, {.both_ways = true}) - own / 2) < 1e-14);
  NegativesRankingOptions normalized = mnr_plus, diagonal{.both_ways = true, .normalized = true};
  normalized.normalized = true;
  CHECK(negatives_ranking<double>(a, b, {}, {}, normalized) == negatives_ranking<double>(a, b, {}, {}, diagonal));
}

TEST_CASE("Similarities of 1e4 stay finite, and an embedding of zeros gets no gradient where lengths are taken off",
          "[loss]") {
  Matrix<double> a(3, 2), b(3, 2), d(3, 2);
  a(0, 0) = 100, b(1, 0) = 100, a(2, 1) = b(2, 1) = 1;
  CHECK(std::isfinite(negatives_ranking<double>(a, b, d, {})));
  for (double g : d.elements()) CHECK(std::isfinite(g));
  fill(d.view(), 0);
  negatives_ranking<double>(a, b, d, {}, {.normalized = true});
  for (double g : d.view().row(1)) CHECK(g == 0);
}

TEST_CASE("negatives_ranking refuses sizes that disagree and temperatures that are none", "[loss]") {
  Matrix<double> a(3, 2), other(2, 3);
  CHECK(code_of([&] { negatives_ranking<double>(a, other, {}, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { negatives_ranking<double>(a, a, other, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { negatives_ranking<double>(a, a, {}, other); }) == ErrorCode::shape);
  CHECK(code_of([&] { negatives_ranking<double>(a, a, {}, {}, {.temperature = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { negatives_ranking<double>(a, a, {}, {}, {.temperature = -1}); }) == ErrorCode::option);
}
