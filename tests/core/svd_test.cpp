// SPDX-License-Identifier: MIT
#include "mole/core/svd.hpp"

#include "core/decompositions.hpp"
#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"

using namespace mole;
using namespace mole::test;

namespace {

template <class T>
Svd<T> checked_svd(const Matrix<T>& m) {
  CAPTURE(m.rows(), m.cols());
  const Index k = std::min(m.rows(), m.cols());
  Svd<T> found = svd(m);
  REQUIRE((found.u.rows() == m.rows() && found.u.cols() == k));
  REQUIRE((found.v.rows() == m.cols() && found.v.cols() == k));
  REQUIRE(Index(found.s.size()) == k);
  const double allowed = Tolerance<T>::sum(std::max(m.rows(), m.cols()));
  CHECK(orthonormality_error(found.u) <= allowed);
  CHECK(orthonormality_error(found.v) <= allowed);
  CHECK(reconstruction_error(m, found.u, found.s, detail::transposed(found.v)) <= allowed);
  CHECK(std::is_sorted(found.s.rbegin(), found.s.rend()));
  for (T s : found.s) CHECK(s >= 0);
  return found;
}

}  // namespace

TEMPLATE_TEST_CASE("A matrix is the sum of its singular triplets", "[core]", float, double) {
  using T = TestType;
  for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{
           {1, 1}, {1, 9}, {9, 1}, {2, 2}, {6, 6}, {23, 7}, {7, 23}, {40, 31}, {0, 3}, {3, 0}, {0, 0}})
    checked_svd(support::random_matrix<T>(rows, cols, 3));
}

TEMPLATE_TEST_CASE("Singular values beyond the rank are 0 to the rounding, and their vectors still orthonormal",
                   "[core]", float, double) {
  using T = TestType;
  for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{{19, 12}, {12, 19}, {16, 16}}) {
    const Svd<T> found = checked_svd(random_of_rank<T>(rows, cols, 5, 11));
    CHECK(found.s[4] > T(0.1));
    for (std::size_t j = 5; j < found.s.size(); ++j)
      CHECK(double(found.s[j]) <= Tolerance<T>::sum(19) * double(found.s[0]));
  }
  for (T s : checked_svd(Matrix<T>(6, 4)).s) CHECK(s == 0);

  Matrix<T> equal_rows(7, 5);
  fill(equal_rows.view(), T(0.5));
  const Svd<T> found = checked_svd(equal_rows);
  CHECK(std::abs(double(found.s[0]) - 0.5 * std::sqrt(35.0)) <= 8 * double(std::numeric_limits<T>::epsilon()));
}

TEST_CASE("Known singular values are found: of a diagonal, of a rotation, of 2 x 2", "[core]") {
  Matrix<double> diagonal(5, 5);
  const std::vector<double> values{-3, 1e-9, 0, 7, 1e-30};
  for (Index i = 0; i < 5; ++i) diagonal(i, i) = values[std::size_t(i)];
  CHECK(checked_svd(diagonal).s == std::vector<double>{7, 3, 1e-9, 1e-30, 0});

  const Qr<double> rotation = qr(support::random_matrix<double>(8, 8, 2));
  for (double s : checked_svd(rotation.q).s) CHECK(std::abs(s - 1) <= Tolerance<double>::sum(8));

  Matrix<double> two(2, 2);
  two(0, 0) = 3, two(0, 1) = 0, two(1, 0) = 4, two(1, 1) = 5;  // squares of s: 45 and 5
  const Svd<double> found = checked_svd(two);
  CHECK(std::abs(found.s[0] - std::sqrt(45.0)) <= 1e-14);
  CHECK(std::abs(found.s[1] - std::sqrt(5.0)) <= 1e-14);
}

TEST_CASE("Singular values of widely different sizes of rows keep their own digits", "[core]") {
  // D Q with a graded diagonal D: one-sided Jacobi finds each value to the rounding of itself, not of the largest.
  const Qr<double> rotation = qr(support::random_matrix<double>(6, 6, 4));
  Matrix<double> graded(6, 6);
  for (Index r = 0; r < 6; ++r)
    for (Index c = 0; c < 6; ++c) graded(r, c) = std::pow(1e-6, double(r)) * rotation.q(r, c);
  const Svd<double> found = checked_svd(graded);
  for (Index j = 0; j < 6; ++j) CHECK(std::abs(found.s[std::size_t(j)] / std::pow(1e-6, double(j)) - 1) < 1e-10);
}

TEST_CASE("Matrices of huge and of tiny numbers have the vectors of others", "[core]") {
  const auto m = support::random_matrix<double>(11, 6, 8);
  const Svd<double> unscaled = svd(m);
  for (const double size : {1e-300, 1e-150, 1e150, 1e300}) {
    Matrix<double> sized = m;
    for (double& value : sized.elements()) value *= size;
    const Svd<double> found = checked_svd(sized);
    for (std::size_t j = 0; j < 6; ++j) CHECK(std::abs(found.s[j] / size / unscaled.s[j] - 1) < 1e-13);
    // signs follow from the same steps
    CHECK(support::largest_difference(found.u, unscaled.u) < 1e-12);
  }
}

TEST_CASE("A singular value decomposition of no number is refused", "[core]") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{3, 2}, std::pair<Index, Index>{2, 3}}) {
    Matrix<double> m(rows, cols);
    m(1, 1) = std::nan("");
    CHECK(code_of([&] { svd(m); }) == ErrorCode::option);
  }
}
