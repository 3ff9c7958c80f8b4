// SPDX-License-Identifier: MIT
#include "mole/core/qr.hpp"

#include "core/decompositions.hpp"
#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/tolerance.hpp"

using namespace mole;
using namespace mole::test;

namespace {

template <class T>
void check_qr(const Matrix<T>& m) {
  CAPTURE(m.rows(), m.cols());
  const Index k = std::min(m.rows(), m.cols());
  const Qr<T> found = qr(m);
  REQUIRE((found.q.rows() == m.rows() && found.q.cols() == k));
  REQUIRE((found.r.rows() == k && found.r.cols() == m.cols()));
  CHECK(orthonormality_error(found.q) <= Tolerance<T>::sum(m.rows()));
  CHECK(reconstruction_error(m, found.q, {}, found.r) <= Tolerance<T>::sum(m.rows()));
  for (Index r = 0; r < k; ++r)
    for (Index c = 0; c < r; ++c) CHECK(found.r(r, c) == 0);
}

}  // namespace

TEMPLATE_TEST_CASE("A matrix is an orthonormal one times a triangular one", "[core]", float, double) {
  using T = TestType;
  for (const auto& [rows, cols] : std::vector<std::pair<Index, Index>>{
           {1, 1}, {1, 7}, {7, 1}, {5, 5}, {17, 6}, {6, 17}, {64, 33}, {0, 3}, {3, 0}, {0, 0}})
    check_qr(support::random_matrix<T>(rows, cols, 3));
  check_qr(random_of_rank<T>(19, 12, 4, 5));
  check_qr(Matrix<T>(6, 4));
}

TEST_CASE("Numbers whose squares overflow or vanish are decomposed as others", "[core]") {
  const auto m = support::random_matrix<double>(9, 5, 7);
  const Qr<double> unscaled = qr(m);
  for (const int power : {-1000, -500, 500, 1000}) {
    Matrix<double> scaled = m;
    for (double& value : scaled.elements()) value = std::ldexp(value, power);
    const Qr<double> found = qr(scaled);
    CHECK(support::same_bits(found.q, unscaled.q));
    for (Index r = 0; r < 5; ++r)
      for (Index c = 0; c < 5; ++c) CHECK(found.r(r, c) == std::ldexp(unscaled.r(r, c), power));
  }
}

TEST_CASE("A triangular matrix stays as it is", "[core]") {
  Matrix<double> m(4, 3);
  m(0, 0) = 2, m(0, 2) = -1, m(1, 1) = -3, m(2, 2) = 0.5;
  const Qr<double> found = qr(m);
  for (Index r = 0; r < 3; ++r)
    for (Index c = 0; c < 3; ++c) CHECK(found.r(r, c) == m(r, c));
}

TEST_CASE("What is no number is refused before anything is decomposed", "[core]") {
  Matrix<float> m(3, 2);
  m(1, 1) = std::numeric_limits<float>::infinity();
  CHECK(code_of([&] { qr(m); }) == ErrorCode::option);
  CHECK(text_of([&] { qr(m); }) == "qr: expected finite numbers, found inf in row 1");
}
