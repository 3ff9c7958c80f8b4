// SPDX-License-Identifier: MIT
// nearest_centroid_router(), centroids_of(): a router that needs features of the experts' data, and no training.
#pragma once

#include "mole/core/float_range.hpp"
#include "mole/router/linear_router.hpp"

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A LinearRouter whose best expert is the one with the nearest centroid:
///
///   logit_e = (2 <x, c_e> - ||c_e||^2) / temperature = -||x - c_e||^2 / temperature + a number that is the token's
///
///   centroids [E x I]
///
/// So a softmax of the logits is that of the negative squared distances, and TopK takes the nearest. For directions
/// instead of distances: a CosineRouter whose prototypes are the centroids. Where centroids are far from 0 and near to
/// each other, subtract their mean from all, and from x, or the differences drown in rounding.
/// Throws Error(shape) for no centroid, Error(option) for a temperature that is not from 1e-30 to 1e30.
/// Source: nearest mean classifiers; for adapters, the baselines of Ostapenko et al. 2024, arXiv:2405.11157.
template <class T>
LinearRouter<T> nearest_centroid_router(View<const T> centroids, double temperature = 1) {
  require(centroids.size() > 0, ErrorCode::shape, "nearest_centroid_router: expected at least 1 centroid, found none");
  require(temperature > 0 && in_float_range(temperature), ErrorCode::option,
          "nearest_centroid_router: expected a temperature from 1e-30 to 1e30, found ", temperature);
  LinearParameters<T> parameters{Matrix<T>(centroids.rows(), centroids.cols()), Matrix<T>(1, centroids.rows())};
  for (Index e = 0; e < centroids.rows(); ++e) {
    double square = 0;
    for (Index i = 0; i < centroids.cols(); ++i) {
      const double c = double(centroids(e, i));
      parameters.weight(e, i) = T(2 * c / temperature);
      square += c * c;
    }
    parameters.bias(0, e) = T(-square / temperature);
  }
  return LinearRouter<T>(std::move(parameters));
}
template <class T>
LinearRouter<T> nearest_centroid_router(const Matrix<T>& centroids, double temperature = 1) {
  return nearest_centroid_router(centroids.view(), temperature);
}

/// The means of the tokens of each expert.   x [N x I], expert_of_token [N], -1 for nobody's   ->   [E x I]
///
/// In double. Throws Error(shape) unless there is a label for each token, Error(option) for a label that is not one of
/// -1 to E - 1, or an expert without a token.
template <class T>
Matrix<T> centroids_of(View<const T> x, std::span<const int> expert_of_token, Index experts) {
  require_equal(ErrorCode::shape, "centroids_of: labels, one of each token", x.rows(), Index(expert_of_token.size()));
  Matrix<double> sums(experts, x.cols());
  std::vector<Index> counts(static_cast<std::size_t>(std::max<Index>(0, experts)));
  for (Index n = 0; n < x.rows(); ++n) {
    const int expert = expert_of_token[std::size_t(n)];
    require(expert >= -1 && expert < experts, ErrorCode::option, "centroids_of: expected labels from -1 to ",
            experts - 1, ", found ", expert);
    if (expert < 0) continue;
    ++counts[std::size_t(expert)];
    for (Index i = 0; i < x.cols(); ++i) sums(expert, i) += double(x(n, i));
  }
  Matrix<T> centroids(experts, x.cols());
  for (Index e = 0; e < experts; ++e) {
    require(counts[std::size_t(e)] > 0, ErrorCode::option,
            "centroids_of: expected tokens of each expert, found none of ", e);
    for (Index i = 0; i < x.cols(); ++i) centroids(e, i) = T(sums(e, i) / double(counts[std::size_t(e)]));
  }
  return centroids;
}
template <class T>
Matrix<T> centroids_of(const Matrix<T>& x, std::span<const int> expert_of_token, Index experts) {
  return centroids_of(x.view(), expert_of_token, experts);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
