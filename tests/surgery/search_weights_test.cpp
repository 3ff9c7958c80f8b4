// SPDX-License-Identifier: MIT
#include "mole/surgery/search_weights.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <limits>

using namespace mole;
using namespace mole::test;

namespace {
constexpr double optimum[] = {0.7, -0.4, 0, 1.1};
double bowl(std::span<const double> w) {
  double sum = 0;
  for (std::size_t i = 0; i < w.size(); ++i) sum += (w[i] - optimum[i]) * (w[i] - optimum[i]);
  return sum;
}
}  // namespace

TEST_CASE("Weights are found from values of a loss, better with more of them", "[surgery]") {
  double before = std::numeric_limits<double>::infinity();
  for (const Index evaluations : {1, 10, 40, 200, 1500}) {
    Rng rng(3);
    Index calls = 0;
    const auto counted = [&](std::span<const double> w) { return ++calls, bowl(w); };
    const auto found = search_weights(4, counted, {.evaluations = evaluations, .l1 = 0}, rng);
    CHECK(calls == evaluations);
    CHECK(found.loss == bowl(found.weights));
    CHECK(found.objective == found.loss);
    CHECK(found.loss <= before);
    before = found.loss;
  }
  CHECK(before < 1e-10);
}

TEST_CASE("Weights stay within their bounds, and the penalty draws them to 0", "[surgery]") {
  Rng rng(3);
  const auto bounded = search_weights(4, bowl, {.evaluations = 800, .bound = 0.5, .l1 = 0}, rng);
  CHECK(std::abs(bounded.weights[0] - 0.5) < 1e-3);
  CHECK(std::abs(bounded.weights[3] - 0.5) < 1e-3);
  CHECK(std::abs(bounded.weights[1] + 0.4) < 1e-3);
  const auto penalized = search_weights(4, bowl, {.evaluations = 3000, .l1 = 4}, rng);
  // d/dw (w - t)^2 + |w| = 0 at t - 1/2, or 0 for |t| < 1/2
  CHECK(std::abs(penalized.weights[0] - 0.2) < 1e-2);
  CHECK(std::abs(penalized.weights[1]) < 1e-2);
  CHECK(std::abs(penalized.weights[3] - 0.6) < 1e-2);
  double sum = 0;
  for (double w : penalized.weights) sum += std::abs(w);
  CHECK(std::abs(penalized.objective - (penalized.loss + sum)) < 1e-12);
}

TEST_CASE("A loss that is no number somewhere leads away from there", "[surgery]") {
  Rng rng(3);
  const auto found = search_weights(
      4, [](std::span<const double> w) { return w[0] < 0.3 ? std::nan("") : bowl(w); }, {.evaluations = 1500, .l1 = 0},
      rng);
  CHECK(found.loss < 1e-8);
}

TEST_CASE("The same generator searches the same weights; options out of range are refused", "[surgery]") {
  Rng first(3), second(3);
  CHECK(search_weights(4, bowl, {}, first).weights == search_weights(4, bowl, {}, second).weights);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto start = search_weights(2, bowl, {.evaluations = 1, .start = {0.2, -1}}, first);
  CHECK(start.weights == std::vector<double>{0.2, -1});
  for (const SearchWeightsOptions& options : {SearchWeightsOptions{.evaluations = 0},
                                              {.start = {2, 0, 0, 0}},
                                              {.bound = 0},
                                              {.bound = infinity},
                                              {.step = 0},
                                              {.step = infinity},
                                              {.l1 = -1},
                                              {.l1 = infinity}})
    CHECK(code_of([&] { search_weights(4, bowl, options, first); }) == ErrorCode::option);
  CHECK(code_of([&] { search_weights(0, bowl, {}, first); }) == ErrorCode::option);
  CHECK(code_of([&] { search_weights(4, bowl, {.start = {1}}, first); }) == ErrorCode::shape);
}
