// SPDX-License-Identifier: MIT
#include "mole/surgery/merge_router_rows.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("Rows of a router become means of their clusters, by counts", "[surgery]") {
  const auto rows = support::random_matrix<float>(4, 3, 5);
  const Matrix<float> merged = merge_router_rows(rows.view(), {0, 2, 0, 2}, {1, 0, 3, 0});
  REQUIRE(merged.rows() == 3);
  for (Index i = 0; i < 3; ++i) {
    CHECK(std::abs(double(merged(0, i)) - (0.25 * double(rows(0, i)) + 0.75 * double(rows(2, i)))) < 1e-7);
    CHECK(merged(1, i) == 0);
    CHECK(std::abs(double(merged(2, i)) - (double(rows(1, i)) + double(rows(3, i))) / 2) < 1e-7);
  }
}

TEST_CASE("Labels and counts of other rows, or below 0, are refused; no rows merge to none", "[surgery]") {
  const Matrix<float> rows(3, 2);
  CHECK(code_of([&] { merge_router_rows(rows.view(), {0, 1}, {1, 1, 1}); }) == ErrorCode::shape);
  CHECK(code_of([&] { merge_router_rows(rows.view(), {0, 1, 1}, {1, 1}); }) == ErrorCode::shape);
  CHECK(code_of([&] { merge_router_rows(rows.view(), {0, -1, 1}, {1, 1, 1}); }) == ErrorCode::option);
  for (const int label : {3, 1'000'000'000, std::numeric_limits<int>::max()})
    CHECK(code_of([&] { merge_router_rows(rows.view(), {0, label, 1}, {1, 1, 1}); }) == ErrorCode::option);
  CHECK(code_of([&] { merge_router_rows(rows.view(), {0, 1, 1}, {1, -1, 1}); }) == ErrorCode::option);
  CHECK(merge_router_rows(View<const float>(), {}, {}).rows() == 0);
}
