// SPDX-License-Identifier: MIT
#include "mole/loss/triplet_cosine.hpp"

#include "core/error_code.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"

using namespace mole;
using namespace mole::test;

TEST_CASE("A triplet costs the margin less the lead of the positive, lengths aside", "[loss]") {
  Matrix<double> q(1, 2), p(1, 2), n(1, 2);
  q(0, 0) = 3, p(0, 0) = p(0, 1) = 2, n(0, 1) = 7;  // cosines of sqrt(1/2) and 0
  CHECK(std::abs(triplet_cosine<double>(q, p, n, {}, {}, {}, {.coefficient = 2}) - 2 * (1 - std::sqrt(0.5))) < 1e-14);
  CHECK(triplet_cosine<double>(q, p, n, {}, {}, {}, {.margin = 0.7}) == 0);
  CHECK(std::abs(triplet_cosine<double>(q, n, p, {}, {}, {}, {.margin = 0}) - std::sqrt(0.5)) < 1e-14);
  CHECK(triplet_cosine<double>(Matrix<double>(0, 2), Matrix<double>(0, 2), Matrix<double>(0, 2), {}, {}, {}) == 0);
}

TEST_CASE("triplet_cosine adds the gradients of its value; triplets beyond the margin have none", "[loss]") {
  auto q = laws::random_matrix<double>(6, 4, 1), p = laws::random_matrix<double>(6, 4, 2),
       n = laws::random_matrix<double>(6, 4, 3);
  const TripletCosineOptions options{.coefficient = 0.7, .margin = 0.1};
  Matrix<double> d_q(6, 4), d_p(6, 4), d_n(6, 4);
  triplet_cosine<double>(q, p, n, d_q, d_p, d_n, options);
  const auto value = [&] { return triplet_cosine<double>(q, p, n, {}, {}, {}, options); };
  CHECK(gradient_error(q.elements(), d_q.elements(), value) < gradient_tolerance);
  CHECK(gradient_error(p.elements(), d_p.elements(), value) < gradient_tolerance);
  CHECK(gradient_error(n.elements(), d_n.elements(), value) < gradient_tolerance);
  int without = 0;
  for (Index i = 0; i < 6; ++i) without += d_q(i, 0) == 0;
  CHECK(without > 0);
  CHECK(without < 6);
  const Matrix<double> once = d_p;
  triplet_cosine<double>(q, p, n, {}, d_p, {}, options);
  for (std::size_t i = 0; i < 24; ++i) CHECK(std::abs(d_p.elements()[i] - 2 * once.elements()[i]) < 1e-14);
}

TEST_CASE("An embedding of zeros has no direction and no gradient", "[loss]") {
  Matrix<double> q(1, 2), p(1, 2), n(1, 2), d_q(1, 2), d_p(1, 2);
  p(0, 0) = n(0, 1) = 1;
  CHECK(triplet_cosine<double>(q, p, n, d_q, d_p, {}) == 1);
  for (double d : d_q.elements()) CHECK(d == 0);
  for (double d : d_p.elements()) CHECK(d == 0);
}

TEST_CASE("triplet_cosine refuses sizes that disagree", "[loss]") {
  const Matrix<double> q(3, 2), other(2, 3);
  Matrix<double> d(2, 3);
  CHECK(code_of([&] { triplet_cosine<double>(q, other, q, {}, {}, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { triplet_cosine<double>(q, q, other, {}, {}, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { triplet_cosine<double>(q, q, q, {}, d, {}); }) == ErrorCode::shape);
  CHECK(code_of([&] { triplet_cosine<double>(q, q, q, {}, {}, {}, {.margin = NAN}); }) == ErrorCode::option);
}
