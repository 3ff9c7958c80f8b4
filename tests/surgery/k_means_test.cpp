// SPDX-License-Identifier: MIT
#include "mole/surgery/k_means.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <set>

using namespace mole;
using namespace mole::test;

namespace {
/// Ten points around each of three far corners, in turn.
Matrix<double> three_heaps() {
  Matrix<double> points = support::random_matrix<double>(30, 4, 3, 0.1);
  for (Index n = 0; n < 30; ++n) points(n, n % 3) += 5;
  return points;
}

/// The sum of squared distances to the mean of the own cluster, in plain loops.
double cost_of(const Matrix<double>& points, const std::vector<int>& label) {
  double cost = 0;
  for (const int c : std::set<int>(label.begin(), label.end())) {
    std::vector<double> mean(std::size_t(points.cols()));
    double size = 0;
    for (Index n = 0; n < points.rows(); ++n)
      if (label[std::size_t(n)] == c) {
        ++size;
        for (Index i = 0; i < points.cols(); ++i) mean[std::size_t(i)] += points(n, i);
      }
    for (Index n = 0; n < points.rows(); ++n)
      if (label[std::size_t(n)] == c)
        for (Index i = 0; i < points.cols(); ++i) cost += std::pow(points(n, i) - mean[std::size_t(i)] / size, 2);
  }
  return cost;
}
}  // namespace

TEST_CASE("Points that lie in heaps are found in them, from farthest points and from any start", "[surgery]") {
  const Matrix<double> points = three_heaps();
  for (const std::vector<Index>& initial : {std::vector<Index>{}, {0, 1, 2}, {29, 10, 3}}) {
    const KMeans found = k_means(points, {.clusters = 3, .initial = initial});
    CHECK(std::set<int>(found.label.begin(), found.label.end()).size() == 3);
    for (std::size_t n = 3; n < 30; ++n) CHECK(found.label[n] == found.label[n % 3]);
    for (Index c = 0; c < 3; ++c) CHECK(found.size(c) == 10);
    for (std::size_t heap = 0; heap < 3; ++heap)
      CHECK(std::abs(found.centers(found.label[heap], Index(heap)) - 5) < 0.1);
  }
}

TEST_CASE("More iterations never make clusters worse, and the same points give the same labels", "[surgery]") {
  const auto points = support::random_matrix<double>(60, 5, 9);
  double before = std::numeric_limits<double>::infinity();
  for (const Index iterations : {1, 2, 3, 5, 50, 100}) {
    const KMeans found = k_means(points, {.clusters = 7, .iterations = iterations});
    CHECK(found.label == k_means(points, {.clusters = 7, .iterations = iterations}).label);
    const double cost = cost_of(points, found.label);
    CHECK(cost <= before);
    before = cost;
  }
  CHECK(before < cost_of(points, std::vector<int>(60, 0)));
}

TEST_CASE("The order of points does not matter to how they are grouped", "[surgery]") {
  const auto points = support::random_matrix<double>(40, 5, 11);
  const auto order = support::reversed(40);
  const auto there = k_means(points, {.clusters = 6}),
             back = k_means(support::permuted(points, order), {.clusters = 6});
  for (Index n = 0; n < 40; ++n)
    for (Index m = 0; m < 40; ++m)
      CHECK((there.label[std::size_t(n)] == there.label[std::size_t(m)]) ==
            (back.label[std::size_t(39 - n)] == back.label[std::size_t(39 - m)]));
}

TEST_CASE("One cluster, a cluster of each point, and clusters that stay empty", "[surgery]") {
  const auto points = support::random_matrix<double>(6, 3, 2);
  CHECK(k_means(points, {.clusters = 1}).size(0) == 6);
  const KMeans each = k_means(points, {.clusters = 6});
  for (Index c = 0; c < 6; ++c) CHECK(each.size(c) == 1);
  Matrix<double> equal(5, 2);
  fill(equal.view(), 3);
  const KMeans found = k_means(equal, {.clusters = 2});
  CHECK(found.size(0) == 5);
  CHECK(found.size(1) == 0);
  CHECK(found.centers(1, 1) == 3);
}

TEST_CASE("Options of clusters out of range are refused", "[surgery]") {
  const auto points = support::random_matrix<double>(6, 3, 2);
  for (const KMeansOptions& options : {KMeansOptions{.clusters = 0},
                                       {.clusters = 7},
                                       {.clusters = 2, .iterations = 0},
                                       {.clusters = 2, .initial = {1}},
                                       {.clusters = 2, .initial = {1, 6}},
                                       {.clusters = 2, .initial = {-1, 0}}})
    CHECK(code_of([&] { k_means(points, options); }) == ErrorCode::option);
  CHECK(text_of([&] { k_means(points, {.clusters = 7}); }) ==
        "k_means: expected from 1 to 6 clusters, one for each point at most, found 7");
}

TEST_CASE("Points that are no numbers, and none at all, are refused", "[surgery]") {
  for (const double wrong : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    auto points = support::random_matrix<double>(6, 3, 2);
    points(4, 1) = wrong;
    CHECK(code_of([&] { k_means(points, {.clusters = 2}); }) == ErrorCode::option);
    CHECK(code_of([&] { k_means(points, {.clusters = 2, .initial = {0, 1}}); }) == ErrorCode::option);
  }
  CHECK(code_of([&] { k_means(Matrix<double>(0, 3), {.clusters = 1}); }) == ErrorCode::option);
}
