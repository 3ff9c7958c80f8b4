// SPDX-License-Identifier: MIT
// lego_merge(): merges adapters by clustering their ranks.
#pragma once

#include "mole/surgery/k_means.hpp"
#include "mole/surgery/update_sum.hpp"

#include <numeric>

#include "mole/core/macros_off.hpp"

namespace mole {

/// By what lego_merge() measures the ranks of a cluster and their mean.
enum class LegoNorm {
  largest,    ///< the largest magnitude in a and b
  euclidean,  ///< of a and b together
};

/// How ranks are clustered, and what becomes of a cluster.
struct LegoOptions {
  Index clusters = 0;      ///< ranks of the result; 0: the largest rank of the adapters
  bool normalized = true;  ///< clusters by the directions of a and b, not by the vectors
  /// Of the two forms (a, b) and (-a, -b) of a rank takes that in which the largest magnitude of a is positive.
  bool canonical_sign = false;
  bool reweight_parameters = true;  ///< a mean gets the mean norm of its ranks: averaging makes vectors shorter
  LegoNorm norm = LegoNorm::largest;
  bool reweight_output = true;  ///< the update times sqrt(r / clusters), r = mean rank of the adapters
  Index iterations = 10;
  std::vector<Index> initial = {};  ///< ranks that clusters start at, counted through all adapters; empty: the farthest
  double scale = 1;                 ///< of the result
};

/// What lego_merge() returns.
template <std::floating_point T>
struct LegoMerge {
  Adapter<T> adapter;
  double error = 0;        ///< as that of a MergedAdapter
  std::vector<int> label;  ///< the cluster of each rank of all adapters, in order
};

namespace detail {

/// All ranks [a_j, f_i b_j] of all adapters, f_i = w_i s_i / scale, one per row.
template <class T>
Matrix<double> pooled_ranks(const std::vector<WeightedAdapter<T>>& adapters, const LegoOptions& options) {
  Index ranks = 0;
  for (const auto& adapter : adapters) ranks += adapter.rank();
  const Index in = adapters[0].in(), out = adapters[0].out();
  Matrix<double> pool(ranks, in + out);
  Index row = 0;
  for (const auto& adapter : adapters)
    for (Index j = 0; j < adapter.rank(); ++j, ++row) {
      const double factor = adapter.factor() / options.scale;
      for (Index i = 0; i < in; ++i) pool(row, i) = double(adapter.a(j, i));
      for (Index o = 0; o < out; ++o) pool(row, in + o) = factor * double(adapter.b(j, o));
      const auto a = pool.view().row(row).first(std::size_t(in));
      const auto larger = [](double x, double y) { return std::abs(x) < std::abs(y); };
      if (options.canonical_sign && !a.empty() && *std::max_element(a.begin(), a.end(), larger) < 0)
        for (double& value : pool.view().row(row)) value = -value;
    }
  return pool;
}

/// Rows whose first `in` numbers, and whose others, have length 1.
inline Matrix<double> normalized_ranks(Matrix<double> pool, Index in) {
  for (Index row = 0; row < pool.rows(); ++row)
    for (const auto part :
         {pool.view().row(row).first(std::size_t(in)), pool.view().row(row).subspan(std::size_t(in))}) {
      const double length = std::sqrt(dot(part.data(), part.data(), Index(part.size()))) + 1e-8;  // as released
      for (double& value : part) value /= length;
    }
  return pool;
}

inline double lego_norm(std::span<const double> rank, LegoNorm norm) {
  if (norm == LegoNorm::euclidean) return std::sqrt(dot(rank.data(), rank.data(), Index(rank.size())));
  double largest = 0;
  for (double value : rank) largest = std::max(largest, std::abs(value));
  return largest;
}

/// The mean of the ranks of each cluster that has any, reweighted.
inline Matrix<double> cluster_means(const Matrix<double>& pool, const std::vector<int>& label,
                                    const LegoOptions& options) {
  Matrix<double> means(0, pool.cols());
  for (int c = 0; c < int(options.clusters); ++c) {
    Matrix<double> mean(1, pool.cols());
    double norms = 0;
    int size = 0;
    for (Index row = 0; row < pool.rows(); ++row) {
      if (label[std::size_t(row)] != c) continue;
      for (Index i = 0; i < pool.cols(); ++i) mean(0, i) += pool(row, i);
      norms += lego_norm(pool.view().row(row), options.norm);
      ++size;
    }
    if (size == 0) continue;
    for (double& value : mean.elements()) value /= size;
    const double own = lego_norm(mean.elements(), options.norm);  // 0 of ranks that cancel
    if (options.reweight_parameters && own > 0 && size > 1)
      for (double& value : mean.elements()) value *= norms / size / own;
    means = stacked(means, mean);
  }
  return means;
}

}  // namespace detail

/// A rank (a, b) is the smallest unit of an adapter. Those of all adapters are clustered, and the means of clusters are
/// the ranks of the result:
///
///   scale B^T A = scale sqrt(r / clusters) sum_c b_c a_c^T,
///   (a_c, b_c) the reweighted mean over cluster c of (a, f b), f = w s / scale
///
///   adapters of any ranks, one I and one O   ->   an adapter of at most `clusters` ranks: an empty cluster gives no
///   rank
///
/// With as many clusters as ranks and without the two reweightings it is the weighted sum of the updates. With one
/// adapter and fewer clusters than ranks it makes that one smaller. The order of adapters and of their ranks does not
/// matter, unless distances are equal. (a, b) and (c a, b / c) are one rank, and so are (-a, -b), but clusters see them
/// apart: `normalized` and `canonical_sign` are against that.
///
/// Throws Error(option) for no adapter, numbers that are not finite, or more clusters than ranks; Error(shape) for
/// other inputs or outputs.  O(iterations ranks clusters (I + O)).  Offline.
/// Source: Zhao et al. 2024 (LoRA-LEGO), arXiv:2409.16167. No code of the authors is public; the defaults are those of
/// a third-party function, which takes adapters without scale.
template <class T>
LegoMerge<T> lego_merge(const std::vector<WeightedAdapter<T>>& adapters, LegoOptions options = {}) {
  detail::check_adapters("lego_merge", adapters, options.scale);
  options.clusters = detail::rank_or_largest("lego_merge", "clusters", options.clusters, adapters);
  const Index in = adapters[0].in();
  const Matrix<double> pool = detail::pooled_ranks(adapters, options);
  require(options.clusters >= 1 && options.clusters <= pool.rows(), ErrorCode::option,
          "lego_merge: expected from 1 to ", pool.rows(), " clusters, one for each rank at most, found ",
          options.clusters);
  std::vector<int> label(std::size_t(pool.rows()));
  if (options.clusters == pool.rows()) {
    std::iota(label.begin(), label.end(), 0);
  } else {
    const Matrix<double> features = options.normalized ? detail::normalized_ranks(pool, in) : pool;
    label =
        k_means(features, {.clusters = options.clusters, .iterations = options.iterations, .initial = options.initial})
            .label;
  }
  const Matrix<double> means = detail::cluster_means(pool, label, options);
  const double mean_rank = double(pool.rows()) / double(adapters.size());
  const double factor = options.reweight_output ? std::sqrt(mean_rank / double(options.clusters)) : 1;
  Adapter<T> merged{Matrix<T>(means.rows(), in), Matrix<T>(means.rows(), adapters[0].out()), options.scale};
  for (Index c = 0; c < means.rows(); ++c) {
    for (Index i = 0; i < in; ++i) merged.a(c, i) = T(means(c, i));
    for (Index o = 0; o < merged.out(); ++o) merged.b(c, o) = T(factor * means(c, in + o));
  }
  const double error = detail::relative_error(merged, UpdateSum::of(adapters));
  return {std::move(merged), error, std::move(label)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
