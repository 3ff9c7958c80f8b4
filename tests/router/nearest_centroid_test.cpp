// SPDX-License-Identifier: MIT
#include "mole/router/nearest_centroid.hpp"

#include "core/error_code.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <algorithm>
#include <cmath>

using namespace mole;
using support::random_matrix;

TEST_CASE("Logits of a nearest-centroid router are negative squared distances, up to a number of the token",
          "[router]") {
  const auto centroids = random_matrix<double>(4, 6, 1), x = random_matrix<double>(20, 6, 2);
  const auto logits = laws::logits_of(nearest_centroid_router(centroids, 0.5), x);
  for (Index n = 0; n < 20; ++n) {
    double distances[4];
    for (Index e = 0; e < 4; ++e) {
      distances[e] = 0;
      for (Index i = 0; i < 6; ++i) distances[e] += (x(n, i) - centroids(e, i)) * (x(n, i) - centroids(e, i));
      CHECK(std::abs((logits(n, e) - logits(n, 0)) - (distances[0] - distances[e]) / 0.5) < 1e-13);
    }
    const auto row = logits.view().row(n);
    CHECK(std::ranges::max_element(row) - row.begin() == std::ranges::min_element(distances) - distances);
  }
}

TEST_CASE("Centroids are the means of the tokens of each expert", "[router]") {
  Matrix<float> x(5, 2);
  for (Index n = 0; n < 5; ++n) x(n, 0) = float(n), x(n, 1) = 10;
  const std::vector<int> labels{1, 0, 1, -1, 1};
  const Matrix<float> centroids = centroids_of(x, labels, 2);
  CHECK(centroids(0, 0) == 1);
  CHECK(centroids(1, 0) == 2);
  CHECK(centroids(1, 1) == 10);
}

TEST_CASE("Tokens around their centroids go to the expert that they were taken from", "[router]") {
  const auto centers = random_matrix<double>(3, 8, 1, 5.0);
  auto x = random_matrix<double>(60, 8, 2, 0.3);
  std::vector<int> labels;
  for (Index n = 0; n < 60; ++n) {
    labels.push_back(int(n % 3));
    for (Index i = 0; i < 8; ++i) x(n, i) += centers(n % 3, i);
  }
  const auto logits = laws::logits_of(nearest_centroid_router(centroids_of(x, labels, 3)), x);
  for (Index n = 0; n < 60; ++n) {
    const auto row = logits.view().row(n);
    CHECK(std::ranges::max_element(row) - row.begin() == n % 3);
  }
}

TEST_CASE("No centroids, an impossible temperature, and labels that do not fit are refused", "[router]") {
  using test::code_of;
  const auto x = random_matrix<double>(3, 2, 1);
  const auto code = [&](const std::vector<int>& labels, Index count) {
    return code_of([&] { centroids_of(x, labels, count); });
  };
  CHECK(code({0, 1}, 2) == ErrorCode::shape);
  CHECK(code({0, 1, 2}, 2) == ErrorCode::option);
  CHECK(code({0, 1, -2}, 2) == ErrorCode::option);
  CHECK(code({0, 0, -1}, 2) == ErrorCode::option);
  CHECK_FALSE(code({0, 1, -1}, 2));
  CHECK(code_of([] { nearest_centroid_router(Matrix<double>()); }) == ErrorCode::shape);
  CHECK(code_of([&] { nearest_centroid_router(x, 0); }) == ErrorCode::option);
}
