// SPDX-License-Identifier: MIT
// triplet_cosine(): a query is to be nearer to what fits it than to what does not, by a margin.
#pragma once

#include "mole/loss/coefficient.hpp"
#include "mole/loss/embedding_batch.hpp"

#include <cmath>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of triplet_cosine().
struct TripletCosineOptions {
  double coefficient = 1;
  double margin = 1;
};

/// coefficient * mean over triplets of   max(0, margin + d(q, p) - d(q, n)),   d(u, v) = 1 - cos(u, v)
///
///   query, positive, negative [N x D], the rows of a triplet   gradients likewise, accumulated; empty ones are not
///   wanted
///
/// An embedding of zeros has cosines of 0 and gets no gradient. 0 of no triplet. At the margin itself there is no
/// gradient. Throws Error(shape) if sizes disagree, Error(option) for a coefficient beyond float (in_float_range) or a
/// margin that is not finite.  In double; O(N D); takes 3 N D doubles and some from `memory`.
/// Source: Uni-Retrieval 2025, arXiv:2502.05863, margin 1.
template <class T>
double triplet_cosine(View<const T> query, View<const std::type_identity_t<T>> positive,
                      View<const std::type_identity_t<T>> negative, View<std::type_identity_t<T>> d_query,
                      View<std::type_identity_t<T>> d_positive, View<std::type_identity_t<T>> d_negative,
                      const TripletCosineOptions& options = {},
                      std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
  const std::string_view who = "triplet_cosine";
  detail::require_coefficient(who, options.coefficient);
  require(std::isfinite(options.margin), ErrorCode::option, who, ": expected a finite margin, found ", options.margin);
  detail::require_embeddings<T>(who, query, positive, "positives", false);
  detail::require_embeddings<T>(who, query, negative, "negatives", false);
  for (const View<T>& gradient : {d_query, d_positive, d_negative})
    detail::require_embeddings<T>(who, query, gradient, "gradients", true);
  const detail::EmbeddingBatch q(query, true, memory), p(positive, true, memory), n(negative, true, memory);
  std::pmr::vector<double> d_u(std::size_t(query.cols()), memory);
  double value = 0;
  for (Index i = 0; i < query.rows(); ++i) {
    const double excess = options.margin - q.dot(i, p.row(i)) + q.dot(i, n.row(i));
    if (!(excess > 0)) continue;
    const double share = options.coefficient / double(query.rows());
    value += share * excess;
    const auto add = [&](const detail::EmbeddingBatch& own, View<T> d_x, const auto& derivative) {
      if (!d_x) return;
      for (std::size_t c = 0; c < d_u.size(); ++c) d_u[c] = share * derivative(c);
      own.add_gradient(i, d_u, d_x);
    };
    add(q, d_query, [&](std::size_t c) { return n.row(i)[c] - p.row(i)[c]; });
    add(p, d_positive, [&](std::size_t c) { return -q.row(i)[c]; });
    add(n, d_negative, [&](std::size_t c) { return q.row(i)[c]; });
  }
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
