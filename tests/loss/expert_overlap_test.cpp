// SPDX-License-Identifier: MIT
#include "mole/loss/expert_overlap.hpp"

#include "core/error_code.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"

#include <array>

using namespace mole;
using namespace mole::test;

TEST_CASE("The overlap is the sum of the products of ranks of different experts, squared or in size", "[loss]") {
  Matrix<double> a(3, 2);
  a(0, 0) = 1, a(1, 0) = a(1, 1) = 2, a(2, 1) = -3;
  const std::array<int, 2> ranks{1, 2};
  const RankBlocks blocks = RankBlocks::ragged(ranks);
  CHECK(expert_overlap<double>(blocks, a, {}, {.coefficient = 0.5}) == 0.5 * 4);  // ranks 1 and 2 are one expert's
  const RankBlocks single = RankBlocks::uniform(3, 1);
  CHECK(expert_overlap<double>(single, a, {}) == 4 + 36);
  CHECK(expert_overlap<double>(single, a, {}, {.absolute = true}) == 2 + 6);
  CHECK(expert_overlap<double>(single, a, {}, {.frozen = 2}) == 36);
  CHECK(expert_overlap<double>(single, a, {}, {.frozen = 3}) == 0);
  CHECK(expert_overlap<double>(RankBlocks::uniform(1, 3), a, {}) == 0);
}

TEST_CASE("The overlap adds the gradient of its value, but to frozen experts", "[loss]") {
  auto a = laws::random_matrix<double>(6, 5, 1);
  const RankBlocks blocks = RankBlocks::uniform(3, 2);
  for (bool absolute : {false, true}) {
    const ExpertOverlapOptions options{.coefficient = 0.7, .absolute = absolute};
    Matrix<double> d(6, 5);
    fill(d.view(), 1);
    expert_overlap<double>(blocks, a, d, options);
    for (double& g : d.elements()) g -= 1;
    CHECK(gradient_error(a.elements(), d.elements(), [&] { return expert_overlap<double>(blocks, a, {}, options); }) <
          gradient_tolerance);
  }
  Matrix<double> d(6, 5);
  expert_overlap<double>(blocks, a, d, {.frozen = 1});
  for (Index j = 0; j < 2; ++j)
    for (double g : d.view().row(j)) CHECK(g == 0);
  CHECK(d(2, 0) != 0);
}

TEST_CASE("The overlap refuses a shared A and sizes that do not fit", "[loss]") {
  const Matrix<double> a(6, 5);
  Matrix<double> d(5, 6);
  CHECK(code_of([&] { expert_overlap<double>(RankBlocks::uniform(2, 2), a, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { expert_overlap<double>(RankBlocks::uniform(3, 2), a, d); }) == ErrorCode::shape);
  CHECK(code_of([&] { expert_overlap<double>(RankBlocks::uniform(3, 6, true), a, {}); }) == ErrorCode::option);
  CHECK(code_of([&] { expert_overlap<double>(RankBlocks::uniform(3, 2), a, {}, {.frozen = 4}); }) == ErrorCode::option);
}
