// SPDX-License-Identifier: MIT
// negatives_ranking(): brings the embeddings of a pair together, apart from those of all other pairs.
#pragma once

#include "mole/loss/coefficient.hpp"
#include "mole/loss/embedding_batch.hpp"
#include "mole/core/float_range.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which column a row of similarities is to choose.
enum class RankingTarget {
  own_pair,      ///< the diagonal
  most_similar,  ///< the largest of the mean of both sides' own similarities: MNR+
};

/// Options of negatives_ranking(). {.target = most_similar, .both_ways = true} is MNR+.
struct NegativesRankingOptions {
  double coefficient = 1;
  RankingTarget target = RankingTarget::own_pair;
  bool both_ways = false;   ///< the mean of the loss of a against b, and of b against a
  bool normalized = false;  ///< embeddings are divided by their lengths first
  double temperature = 1;   ///< similarities are divided by it
};

namespace detail {

/// The sum of exp(at(j) - most) for j below `size`, `most` being the largest.
struct SoftmaxSum {
  double most = 0, sum = 0;

  template <class At>
  static SoftmaxSum of(Index size, const At& at) {
    SoftmaxSum result{at(0), 0};
    for (Index j = 1; j < size; ++j) result.most = std::max(result.most, at(j));
    for (Index j = 0; j < size; ++j) result.sum += std::exp(at(j) - result.most);
    return result;
  }
  double log() const { return most + std::log(sum); }
  double probability(double logit) const { return std::exp(logit - most) / sum; }
};

/// The targets of MNR+: argmax of the rows and of the columns of P; `p` [N x N] is overwritten.
inline void most_similar_targets(const EmbeddingBatch& a, const EmbeddingBatch& b, Matrix<double>& p,
                                 std::span<Index> of_row, std::span<Index> of_column) {
  for (Index n = 0; n < a.rows(); ++n) {
    for (Index j = 0; j < a.rows(); ++j) p(n, j) = (a.dot(n, a.row(j)) + b.dot(n, b.row(j))) / 2;
    const double log_sum = SoftmaxSum::of(a.rows(), [&](Index j) { return p(n, j); }).log();
    for (Index j = 0; j < a.rows(); ++j) p(n, j) -= log_sum;
  }
  for (Index n = 0; n < a.rows(); ++n) {
    Index &row = of_row[std::size_t(n)] = 0, &column = of_column[std::size_t(n)] = 0;
    for (Index j = 1; j < a.rows(); ++j) {
      if (p(n, j) > p(n, row)) row = j;
      if (p(j, n) > p(column, n)) column = j;
    }
  }
}

}  // namespace detail

/// coefficient * mean over rows n of   -log softmax(L_n)_target(n),   L = a b^T / temperature
///
///   a, b [N x D]: row n of both are a pair, all other rows of b negatives of a_n   d_a, d_b [N x D], accumulated
///
/// With both_ways it is the mean of this and of the same for L^T. Targets other than the own pair come from
/// P = softmax by rows of (a a^T + b b^T) / 2: the argmax of row n, and for L^T that of column n; they are constants in
/// the gradient, ties go to the lower index. Without normalization a long embedding draws the targets of others.
/// Of equal pairs the loss is log N; 0 of none. Empty gradients are not wanted.
/// Throws Error(shape) if sizes disagree; Error(option) unless the temperature, and the size of a coefficient other
/// than 0, are from 1e-30 to 1e30.  In double; O(N^2 D); takes N^2 + 2 N D doubles and some from `memory`.
/// Source: Henderson et al. 2017, arXiv:1705.00652; Hallee et al. 2024, arXiv:2401.15713, Gleghorn-Lab/
/// Mixture-of-Experts-Sentence-Similarity, models/losses.py (MNR and MNR+, not normalized by default).
template <class T>
double negatives_ranking(View<const T> a, View<const std::type_identity_t<T>> b, View<std::type_identity_t<T>> d_a,
                         View<std::type_identity_t<T>> d_b, const NegativesRankingOptions& options = {},
                         std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
  const std::string_view who = "negatives_ranking";
  detail::require_coefficient(who, options.coefficient);
  require(options.temperature > 0 && in_float_range(options.temperature), ErrorCode::option, who,
          ": expected a temperature from 1e-30 to 1e30, found ", options.temperature);
  detail::require_embeddings<T>(who, a, b, "the others of the pairs", false);
  detail::require_embeddings<T>(who, a, d_a, "gradients", true);
  detail::require_embeddings<T>(who, a, d_b, "gradients", true);
  const Index size = a.rows();
  if (size == 0) return 0;
  const detail::EmbeddingBatch of_a(a, options.normalized, memory), of_b(b, options.normalized, memory);

  Matrix<double> l(size, size, memory);  // then its gradient
  std::pmr::vector<Index> of_row(std::size_t(size), memory), of_column(std::size_t(size), memory);
  if (options.target == RankingTarget::most_similar) {
    detail::most_similar_targets(of_a, of_b, l, of_row, of_column);
  } else {
    std::iota(of_row.begin(), of_row.end(), Index(0));
    of_column = of_row;
  }
  for (Index n = 0; n < size; ++n)
    for (Index j = 0; j < size; ++j) l(n, j) = of_a.dot(n, of_b.row(j)) / options.temperature;

  const double share = options.coefficient / double(size) / (options.both_ways ? 2 : 1);
  double value = 0;
  std::pmr::vector<detail::SoftmaxSum> rows(memory), columns(memory);
  for (Index n = 0; n < size; ++n) {
    rows.push_back(detail::SoftmaxSum::of(size, [&](Index j) { return l(n, j); }));
    value += share * (rows.back().log() - l(n, of_row[std::size_t(n)]));
    if (!options.both_ways) continue;
    columns.push_back(detail::SoftmaxSum::of(size, [&](Index j) { return l(j, n); }));
    value += share * (columns.back().log() - l(of_column[std::size_t(n)], n));
  }
  if (!d_a && !d_b) return value;

  for (Index n = 0; n < size; ++n)
    for (Index j = 0; j < size; ++j) {
      double d = rows[std::size_t(n)].probability(l(n, j)) - (of_row[std::size_t(n)] == j);
      if (options.both_ways) d += columns[std::size_t(j)].probability(l(n, j)) - (of_column[std::size_t(j)] == n);
      l(n, j) = share / options.temperature * d;
    }
  std::pmr::vector<double> d_u(std::size_t(a.cols()), memory);
  const auto add_gradients = [&](const auto& own, const auto& other, View<T> d_x, const auto& d_l) {
    for (Index n = 0; d_x && n < size; ++n) {
      std::ranges::fill(d_u, 0.0);
      for (Index j = 0; j < size; ++j)
        for (std::size_t c = 0; c < d_u.size(); ++c) d_u[c] += d_l(n, j) * other.row(j)[c];
      own.add_gradient(n, std::span<const double>(d_u), d_x);
    }
  };
  add_gradients(of_a, of_b, d_a, [&](Index n, Index j) { return l(n, j); });
  add_gradients(of_b, of_a, d_b, [&](Index n, Index j) { return l(j, n); });
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
