// SPDX-License-Identifier: MIT
#include "mole/adapt/right_experts.hpp"

#include "mole/core/matrix.hpp"
#include "support/catch.hpp"

#include <limits>

using namespace mole;

namespace {
std::vector<double> right(const std::vector<std::vector<double>>& probabilities, Index label) {
  Matrix<double> matrix(Index(probabilities.size()), Index(probabilities.front().size()));
  for (Index e = 0; e < matrix.rows(); ++e) std::ranges::copy(probabilities[std::size_t(e)], matrix.view().row_data(e));
  std::vector<double> targets(probabilities.size(), 7);
  right_experts(matrix.view(), label, std::span<double>(targets));
  return targets;
}
}  // namespace

TEST_CASE("All experts whose likeliest class is the label are right", "[adapt]") {
  CHECK(right({{0.6, 0.4}, {0.1, 0.9}, {0.8, 0.2}}, 0) == std::vector<double>{1, 0, 1});
  CHECK(right({{0.5, 0.5}, {0.4, 0.6}}, 0) == std::vector<double>{1, 0});  // a tie is of the lower class
  CHECK(right({{0.5, 0.5}, {0.4, 0.6}}, 1) == std::vector<double>{0, 1});
}

TEST_CASE("If all are wrong, exactly the one to which the label is likeliest is right", "[adapt]") {
  CHECK(right({{0.6, 0.1, 0.3}, {0.5, 0.2, 0.3}, {0.5, 0.2, 0.3}}, 1) == std::vector<double>{0, 1, 0});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(right({{nan, nan}, {0.9, 0.1}}, 1) == std::vector<double>{0, 1});
  CHECK(right({{nan, nan}, {nan, nan}}, 1) == std::vector<double>{1, 0});
}

TEST_CASE("right_experts refuses labels and targets that do not fit", "[adapt]") {
  CHECK_THROWS_AS(right({{0.5, 0.5}}, 2), Error);
  CHECK_THROWS_AS(right({{0.5, 0.5}}, -1), Error);
  const Matrix<double> three(3, 2);
  std::vector<double> two(2);
  CHECK_THROWS_AS(right_experts(three, 0, std::span<double>(two)), Error);
}
