// SPDX-License-Identifier: MIT
#include "mole/loss/bradley_terry.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"

#include <vector>

using namespace mole;
using namespace mole::test;

TEST_CASE("Equal rewards cost log 2, and a pair's gradient is what the loser has of a chance", "[loss]") {
  const std::vector<int> ranks{1, 0};
  std::vector<double> rewards{0.7, 0.7}, d(2, 0.0);
  CHECK(std::abs(bradley_terry<double>(rewards, ranks, d) - std::log(2)) < 1e-15);
  rewards = {1.2, -0.4};  // the worse answer leads
  d = {1, 1};
  CHECK(std::abs(bradley_terry<double>(rewards, ranks, d, {.coefficient = 3}) - 3 * std::log1p(std::exp(1.6))) < 1e-14);
  const double chance = 1 / (1 + std::exp(-1.6));
  CHECK(std::abs(d[1] - (1 - 3 * chance)) < 1e-14);
  CHECK(std::abs(d[0] - (1 + 3 * chance)) < 1e-14);
}

TEST_CASE("bradley_terry adds the gradient of its value, over the pairs of different rank and one group", "[loss]") {
  const std::vector<int> ranks{2, 0, 1, 1, 0, 3}, groups{5, 5, 5, 8, 8, 9};
  std::vector<double> rewards{0.3, -0.2, 0.9, 0.1, 1.4, -5};
  for (bool grouped : {false, true}) {
    const BradleyTerryOptions options{.coefficient = 0.7,
                                      .groups = std::span<const int>(groups).first(grouped ? groups.size() : 0)};
    std::vector<double> d(6, 0.0);
    bradley_terry<double>(rewards, ranks, d, options);
    CHECK(gradient_error(std::span<double>(rewards), d,
                         [&] { return bradley_terry<double>(rewards, ranks, {}, options); }) < gradient_tolerance);
    CHECK((d[5] == 0) == grouped);
  }
}

TEST_CASE("Rewards far apart cost their distance or nothing; equal ranks cost nothing", "[loss]") {
  const std::vector<int> ranks{0, 1}, equal{4, 4};
  std::vector<double> d(2, 0.0);
  CHECK(bradley_terry<double>(std::vector<double>{1e5, -1e5}, ranks, d) == 0);
  CHECK(d == std::vector<double>(2, 0.0));
  CHECK(bradley_terry<double>(std::vector<double>{-1e5, 1e5}, ranks, d) == 2e5);
  CHECK(d == std::vector<double>{-1, 1});
  CHECK(bradley_terry<double>(std::vector<double>{-1e5, 1e5}, equal, {}) == 0);
  CHECK(bradley_terry<double>({}, {}, {}) == 0);
}

TEST_CASE("bradley_terry refuses sizes that disagree", "[loss]") {
  const std::vector<double> rewards(3, 0.0);
  const std::vector<int> ranks{0, 1, 2}, two{0, 1};
  std::vector<double> d(2, 0.0);
  CHECK(code_of([&] { bradley_terry<double>(rewards, two, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { bradley_terry<double>(rewards, ranks, d); }) == ErrorCode::shape);
  CHECK(code_of([&] { bradley_terry<double>(rewards, ranks, {}, {.groups = two}); }) == ErrorCode::shape);
  CHECK(code_of([&] { bradley_terry<double>(rewards, ranks, {}, {.coefficient = NAN}); }) == ErrorCode::option);
}
