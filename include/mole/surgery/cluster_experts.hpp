// SPDX-License-Identifier: MIT
// cluster_experts(), expert_similarity(): which experts do the same.
#pragma once

#include "mole/core/matrix_products.hpp"
#include "mole/surgery/k_means.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The features by which experts are clustered.
enum class ExpertFeatures {
  outputs,     ///< their outputs for all tokens
  similarity,  ///< how similar each is to all others: the rows of 1 - expert_similarity()
};

/// Into how many clusters, by what.
struct ClusterExpertsOptions {
  Index clusters = 1;
  ExpertFeatures by = ExpertFeatures::outputs;
  Index iterations = 100;
};

namespace detail {
template <class T>
void check_outputs(std::string_view who, const std::vector<View<const T>>& outputs) {
  require(!outputs.empty(), ErrorCode::option, who, ": expected at least 1 expert, found 0");
  for (std::size_t e = 1; e < outputs.size(); ++e)
    require(outputs[e].rows() == outputs[0].rows() && outputs[e].cols() == outputs[0].cols(), ErrorCode::shape, who,
            ": outputs of expert ", e, ": expected [", outputs[0].rows(), " x ", outputs[0].cols(), "], found [",
            outputs[e].rows(), " x ", outputs[e].cols(), "]");
  require(outputs[0].rows() >= 1, ErrorCode::option, who, ": expected outputs of at least 1 token, found 0");
  for (std::size_t e = 0; e < outputs.size(); ++e)
    for (Index n = 0; n < outputs[e].rows(); ++n)
      for (const T value : outputs[e].row(n))
        require(std::isfinite(value), ErrorCode::option, who, ": outputs of expert ", e,
                ": expected finite numbers, found ", double(value), " for token ", n);
}
}  // namespace detail

/// The mean over tokens of the cosine of the outputs of two experts.
///
///   outputs: [N x O] of each expert, for the same tokens   ->   [E x E], ones on the diagonal
///
/// An output of 0 has cosine 0 with all, itself too. Throws Error(option) for no expert, no token, or numbers that are
/// not finite, Error(shape) for other sizes.  O(E^2 N O).
/// Source: Li et al. 2025 (Sub-MoE), arXiv:2506.23266.
template <class T>
Matrix<double> expert_similarity(const std::vector<View<const T>>& outputs) {
  detail::check_outputs("expert_similarity", outputs);
  const Index experts = Index(outputs.size()), tokens = outputs[0].rows();
  Matrix<double> similarity(experts, experts);
  for (Index n = 0; n < tokens; ++n) {
    Matrix<double> directions(experts, outputs[0].cols());
    for (Index e = 0; e < experts; ++e) {
      const auto direction = directions.view().row(e);
      std::ranges::copy(outputs[std::size_t(e)].row(n), direction.begin());
      double largest = 0;  // divided by first: squares of outputs may be beyond what double holds
      for (double value : direction) largest = std::max(largest, std::abs(value));
      if (largest == 0) continue;
      for (double& value : direction) value /= largest;
      const double length = std::sqrt(detail::dot(direction.data(), direction.data(), directions.cols()));
      for (double& value : direction) value /= length;
    }
    const Matrix<double> cosines = detail::product_nt(directions, directions);
    for (std::size_t k = 0; k < cosines.elements().size(); ++k)
      similarity.elements()[k] += cosines.elements()[k] / double(tokens);
  }
  return similarity;
}

/// Groups of experts whose outputs are near: the cluster of each.   [E]
///
///   outputs: [N x O] of each expert, for the same calibration tokens
///
/// By k_means(), from the experts that differ most; nothing is random. Throws as expert_similarity(), and Error(option)
/// for a number of clusters that is not one of 1 to E.  O(iterations clusters E N O).  Offline.
/// Source: Li et al. 2025 (Sub-MoE), arXiv:2506.23266: k-means of outputs; of similarities: a reimplementation,
/// zhy617/SMoE.
template <class T>
std::vector<int> cluster_experts(const std::vector<View<const T>>& outputs, const ClusterExpertsOptions& options) {
  detail::check_outputs("cluster_experts", outputs);
  const Index experts = Index(outputs.size());
  require(options.clusters >= 1 && options.clusters <= experts, ErrorCode::option,
          "cluster_experts: expected from 1 to ", experts, " clusters, found ", options.clusters);
  Matrix<double> features;
  if (options.by == ExpertFeatures::similarity) {
    features = expert_similarity(outputs);
    for (double& value : features.elements()) value = 1 - value;
  } else {
    features = Matrix<double>(experts, outputs[0].size());
    for (Index e = 0; e < experts; ++e)
      for (Index n = 0; n < outputs[0].rows(); ++n)
        std::ranges::copy(outputs[std::size_t(e)].row(n), features.view().row_data(e) + n * outputs[0].cols());
  }
  return k_means(features, {.clusters = options.clusters, .iterations = options.iterations}).label;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
