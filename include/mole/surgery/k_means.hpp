// SPDX-License-Identifier: MIT
// k_means(): a few groups of near points, the same on every machine.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How many clusters are looked for, and how long.
struct KMeansOptions {
  Index clusters = 8;
  Index iterations = 10;            ///< at most; ends where no label changes
  std::vector<Index> initial = {};  ///< the points that centers start at; empty: the farthest ones
};

/// What k_means() finds.
struct KMeans {
  std::vector<int> label;  ///< [N] the cluster of each point
  Matrix<double> centers;  ///< [clusters x D] the means of their points; of an empty cluster, where it was left

  Index size(Index cluster) const { return Index(std::count(label.begin(), label.end(), int(cluster))); }
};

namespace detail {

inline double squared_distance(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

/// The point farthest from the mean of all, then again and again the one farthest from those chosen. No order of the
/// points matters, but where distances are equal.
inline std::vector<Index> farthest_points(View<const double> points, Index count) {
  std::vector<double> mean(std::size_t(points.cols())), distance(std::size_t(points.rows()));
  for (Index n = 0; n < points.rows(); ++n)
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += points.row(n)[i] / double(points.rows());
  for (Index n = 0; n < points.rows(); ++n) distance[std::size_t(n)] = squared_distance(points.row(n), mean);
  std::vector<Index> chosen;
  while (Index(chosen.size()) < count) {
    const Index next = std::max_element(distance.begin(), distance.end()) - distance.begin();
    for (Index n = 0; n < points.rows(); ++n) {
      double& least = distance[std::size_t(n)];
      const double here = squared_distance(points.row(n), points.row(next));
      least = chosen.empty() ? here : std::min(least, here);
    }
    chosen.push_back(next);
  }
  return chosen;
}

/// The nearest center of each point, of equally near ones the first. Returns whether a label has changed.
inline bool label_points(View<const double> points, KMeans& found) {
  bool changed = false;
  for (Index n = 0; n < points.rows(); ++n) {
    int nearest = 0;
    double least = std::numeric_limits<double>::infinity();
    for (Index c = 0; c < found.centers.rows(); ++c) {
      const double distance = squared_distance(points.row(n), found.centers.view().row(c));
      if (distance < least) least = distance, nearest = int(c);
    }
    changed |= std::exchange(found.label[std::size_t(n)], nearest) != nearest;
  }
  return changed;
}

inline void move_centers(View<const double> points, KMeans& found) {
  Matrix<double> sums(found.centers.rows(), found.centers.cols());
  for (Index n = 0; n < points.rows(); ++n)
    for (Index i = 0; i < points.cols(); ++i) sums(found.label[std::size_t(n)], i) += points(n, i);
  for (Index c = 0; c < sums.rows(); ++c)
    if (const Index size = found.size(c); size > 0)
      for (Index i = 0; i < sums.cols(); ++i) found.centers(c, i) = sums(c, i) / double(size);
}

}  // namespace detail

/// Lloyd's iteration: points go to the nearest center, centers to the mean of their points.
///
///   points [N x D]   ->   label [N], centers [clusters x D]
///
/// Labels are those from before the last move of the centers. Nothing is random: the start is `initial`, or the points
/// that lie farthest from each other (Gonzalez 1985). A cluster may become, and stay, empty.
/// Throws Error(option) for less than 1 or more than N clusters, so for no point, too, less than 1 iteration, initial
/// points that are not of the N, or not one for each cluster, or numbers that are not finite.
/// O(iterations N clusters D).  Offline.
inline KMeans k_means(View<const double> points, const KMeansOptions& options) {
  require(options.clusters >= 1 && options.clusters <= points.rows(), ErrorCode::option, "k_means: expected from 1 to ",
          points.rows(), " clusters, one for each point at most, found ", options.clusters);
  require(options.iterations >= 1, ErrorCode::option, "k_means: expected at least 1 iteration, found ",
          options.iterations);
  for (Index n = 0; n < points.rows(); ++n)
    for (const double value : points.row(n))
      require(std::isfinite(value), ErrorCode::option, "k_means: expected finite numbers, found ", value, " in point ",
              n);
  const std::vector<Index> start =
      options.initial.empty() ? detail::farthest_points(points, options.clusters) : options.initial;
  require_equal(ErrorCode::option, "k_means: initial points", options.clusters, Index(start.size()));
  KMeans found{std::vector<int>(std::size_t(points.rows()), -1), Matrix<double>(options.clusters, points.cols())};
  for (Index c = 0; c < options.clusters; ++c) {
    const Index point = start[std::size_t(c)];
    require(point >= 0 && point < points.rows(), ErrorCode::option, "k_means: expected initial points from 0 to ",
            points.rows() - 1, ", found ", point);
    std::copy_n(points.row_data(point), points.cols(), found.centers.view().row_data(c));
  }
  for (Index i = 0; i < options.iterations && detail::label_points(points, found); ++i)
    detail::move_centers(points, found);
  return found;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
