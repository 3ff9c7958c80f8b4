// SPDX-License-Identifier: MIT
// ClusterGate: fits a linear router to clusters of contexts instead of training it by gradients.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/random.hpp"
#include "mole/core/svd.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Gives each cluster of contexts the expert that does best on it, and fits the router to that.
///
///   contexts [N x C], losses [N x E] of every expert on every environment   ->   weight [E x C], bias [1 x E] or empty
///
/// update() does, in this order:
///   1. k-means of the contexts with K = E, by the mean absolute difference, from the centroids of the last update;
///   ties
///      go to the lower cluster;
///   2. for each cluster the median loss of every expert, the mean of the middle two of an even number;
///   3. clusters, in order, take the expert of the lowest median that is not taken; ties go to the lower expert;
///   4. the weight and bias whose outputs are closest to one-hot targets, by least squares, for contexts plus a little
///      noise; of several the smallest.
/// The router is left as it is, and the centroids start anew, if a cluster is empty, or if k-means has not converged
/// before its last permitted round. The library's gate for it is Softmax, NearBest, Unit, for which scores have no
/// gradient.
///
/// Centroids are state: for_each_state() shows them to a checkpoint. Everything is computed in double.
/// Throws Error(option) for options out of range and numbers that are not finite, Error(shape) for sizes that do not
/// fit; the router and the centroids are then unchanged.  O(rounds N E C + N C^2); allocates.
/// Source: Nzoyem et al. 2025 (MixER), as released (ddrous/MixER, mixer/learner.py).
class ClusterGate {
 public:
  struct Options {
    Index experts = 0;
    Index context = 0;        ///< width C
    Index max_rounds = 20;    ///< of k-means; to converge in the last one is too late, as released
    double tolerance = 1e-4;  ///< k-means has converged if all |new - old| <= tolerance + 1e-5 |old|
    double noise = 1e-4;      ///< deviation of the noise on the contexts of the least squares
    double start = 1e-3;      ///< first centroids are from U(-start, start)
  };

  template <std::uniform_random_bit_generator Generator>
  ClusterGate(const Options& options, Generator& generator) : options_(options) {
    require(options.experts >= 1 && options.context >= 1, ErrorCode::option,
            "ClusterGate: expected at least 1 expert and 1 number of a context, found ", options.experts, " and ",
            options.context);
    require(options.max_rounds >= 1, ErrorCode::option, "ClusterGate: expected at least 1 round, found ",
            options.max_rounds);
    for (double number : {options.tolerance, options.noise, options.start})
      require(number == 0 || (number > 0 && in_float_range(number)), ErrorCode::option,
              "ClusterGate: expected a tolerance, a noise and a start of 0, or from 1e-30 to 1e30, found ", number);
    centroids_ = Matrix<double>(options.experts, options.context);
    restart(generator);
  }

  /// [E x C]
  const Matrix<double>& centroids() const { return centroids_; }
  Matrix<double>& centroids() { return centroids_; }
  /// The expert of each environment after an update that succeeded.
  std::span<const int> expert_of() const { return expert_of_; }

  /// True if the router was fitted. `generator` gives the noise, and new centroids after a failure.
  template <class T, std::uniform_random_bit_generator Generator>
  bool update(View<const T> contexts, View<const T> losses, LinearParameters<T>& router, Generator& generator) {
    Matrix<T> noise(contexts.rows(), contexts.cols());
    for (T& number : noise.elements()) number = T(standard_normal(generator));
    return update(contexts, losses, View<const T>(noise.view()), router, generator);
  }
  /// ... with noise from N(0, 1) that is given.   noise [N x C]
  template <class T, std::uniform_random_bit_generator Generator>
  bool update(View<const T> contexts, View<const T> losses, View<const T> noise, LinearParameters<T>& router,
              Generator& generator) {
    check(contexts, losses, noise, router);
    if (!cluster(contexts)) {
      restart(generator);
      return false;
    }
    match(losses);
    fit(contexts, noise, router);
    return true;
  }

  template <class F>
  void for_each_state(F&& f) {
    f("centroids", std::span<double>(centroids_.elements()));
  }

 private:
  template <class T>
  void check(View<const T> contexts, View<const T> losses, View<const T> noise,
             const LinearParameters<T>& router) const {
    const auto expect = [](const char* what, Index expected, Index found) {
      require_equal(ErrorCode::shape, what, expected, found);
    };
    expect("ClusterGate: columns of the contexts", options_.context, contexts.cols());
    expect("ClusterGate: rows of the losses", contexts.rows(), losses.rows());
    expect("ClusterGate: columns of the losses", options_.experts, losses.cols());
    expect("ClusterGate: rows of the noise", contexts.rows(), noise.rows());
    expect("ClusterGate: columns of the noise", contexts.cols(), noise.cols());
    expect("ClusterGate: rows of the router's weight", options_.experts, router.weight.rows());
    expect("ClusterGate: columns of the router's weight", options_.context, router.weight.cols());
    router.check_sizes("ClusterGate: router");
    for (const View<const T>& numbers : {contexts, losses, noise})
      for (Index n = 0; n < numbers.rows(); ++n)
        for (T number : numbers.row(n))
          require(std::isfinite(number), ErrorCode::option,
                  "ClusterGate: expected finite contexts, losses and noise, found ", double(number), " in row ", n);
  }

  template <class Generator>
  void restart(Generator& generator) {
    fill_uniform(centroids_.view(), options_.start, generator);
    expert_of_.clear();
  }

  /// Step 1. Fills cluster_of_; false if there is no clustering.
  template <class T>
  bool cluster(View<const T> contexts) {
    cluster_of_.assign(std::size_t(contexts.rows()), 0);
    for (Index round = 1; round < options_.max_rounds; ++round) {
      Matrix<double> means(options_.experts, options_.context);
      std::vector<Index> size(std::size_t(options_.experts));
      for (Index n = 0; n < contexts.rows(); ++n) {
        const int nearest = nearest_centroid(contexts.row(n));
        cluster_of_[std::size_t(n)] = nearest;
        ++size[std::size_t(nearest)];
        for (Index c = 0; c < options_.context; ++c) means(nearest, c) += double(contexts(n, c));
      }
      if (std::ranges::count(size, 0) > 0) return false;
      bool converged = true;
      for (Index k = 0; k < options_.experts; ++k)
        for (Index c = 0; c < options_.context; ++c) {
          const double mean = means(k, c) / double(size[std::size_t(k)]), old = centroids_(k, c);
          converged = converged && std::abs(mean - old) <= options_.tolerance + 1e-5 * std::abs(old);
          centroids_(k, c) = mean;
        }
      if (converged) return true;
    }
    return false;
  }

  template <class T>
  int nearest_centroid(std::span<const T> context) const {
    int nearest = 0;
    double least = std::numeric_limits<double>::infinity();
    for (int k = 0; k < options_.experts; ++k) {
      double sum = 0;
      for (std::size_t c = 0; c < context.size(); ++c) sum += std::abs(double(context[c]) - centroids_(k, Index(c)));
      if (sum < least) least = sum, nearest = k;
    }
    return nearest;
  }

  /// Steps 2 and 3. Fills expert_of_.
  template <class T>
  void match(View<const T> losses) {
    std::vector<int> expert_of_cluster(std::size_t(options_.experts), -1);
    std::vector<bool> taken(std::size_t(options_.experts));
    for (int k = 0; k < options_.experts; ++k) {
      double least = std::numeric_limits<double>::infinity();
      int& best = expert_of_cluster[std::size_t(k)];
      for (int e = 0; e < options_.experts; ++e) {
        if (taken[std::size_t(e)]) continue;
        const double loss = median(losses, k, e);
        if (best < 0 || loss < least) least = loss, best = e;
      }
      taken[std::size_t(best)] = true;
    }
    expert_of_.clear();
    for (int k : cluster_of_) expert_of_.push_back(expert_of_cluster[std::size_t(k)]);
  }

  template <class T>
  double median(View<const T> losses, int cluster, int expert) const {
    std::vector<double> of_cluster;
    for (Index n = 0; n < losses.rows(); ++n)
      if (cluster_of_[std::size_t(n)] == cluster) of_cluster.push_back(double(losses(n, expert)));
    std::ranges::sort(of_cluster);
    const std::size_t half = of_cluster.size() / 2;
    return of_cluster.size() % 2 == 1 ? of_cluster[half] : (of_cluster[half - 1] + of_cluster[half]) / 2;
  }

  /// Step 4:   [W b] = Y^T pinv([contexts + noise, 1])^T,   Y [N x E] one-hot.
  template <class T>
  void fit(View<const T> contexts, View<const T> noise, LinearParameters<T>& router) const {
    const Index columns = options_.context + !router.bias.empty();
    Matrix<double> inputs(contexts.rows(), columns);
    for (Index n = 0; n < inputs.rows(); ++n)
      for (Index c = 0; c < columns; ++c)
        inputs(n, c) = c < options_.context ? double(contexts(n, c)) + options_.noise * double(noise(n, c)) : 1;
    const Svd<double> parts = svd(inputs);
    const double least = double(std::max(inputs.rows(), columns)) * std::numeric_limits<double>::epsilon() *
                         (parts.s.empty() ? 0 : parts.s[0]);
    Matrix<double> fitted(options_.experts, columns);
    for (std::size_t j = 0; j < parts.s.size() && parts.s[j] > least; ++j)
      for (Index n = 0; n < inputs.rows(); ++n)
        for (Index c = 0; c < columns; ++c)
          fitted(expert_of_[std::size_t(n)], c) += parts.v(c, Index(j)) * parts.u(n, Index(j)) / parts.s[j];
    for (Index e = 0; e < options_.experts; ++e)
      for (Index c = 0; c < columns; ++c)
        (c < options_.context ? router.weight(e, c) : router.bias(0, e)) = T(fitted(e, c));
  }

  Options options_;
  Matrix<double> centroids_;
  std::vector<int> cluster_of_, expert_of_;  // of the environments
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
