// SPDX-License-Identifier: MIT
// RoutingReferences: a routing for a prompt, from those of solved prompts that are like it.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/unit_vector.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Prompts that a model answered well, each with an embedding [D] and, of each layer l, the weights w_l [E] by which it
/// was routed. A new prompt is routed by a regression over its nearest references:
///
///   s_i = <u(query), u(embedding_i)>, u of UnitVector: the cosine     0 if one of them is 0
///   w_l = sum_i s_i w_il / sum_i s_i, divided by its own sum          over the neighbors i that have layer l
///
/// The neighbors are the `neighbors` references of the largest s_i, ties to the earlier one; all, if there are fewer.
/// Similarities are taken as they are, so that a negative one subtracts. For another kernel, change those that
/// nearest() returns: the paper's is exp(-||query - embedding_i||^2 / (2 h^2)), with the prompt's own routing mixed in
/// by the caller; the release's, and so this one's, are the cosines, and the own routing has no part.
///
/// The weights take the place of the layer's scores for the last token of the prompt and for each token generated
/// after it: a Gate of the layer's Select and Weigh, and Identity as its score, chooses by them as logits, and the
/// layer applies that routing. Weights may be negative, if a similarity was. The release does so in the last five
/// layers.
///
/// All arithmetic in double.  nearest(): O(references D), regress(): O(neighbors E).
/// Source: Li et al. 2025 (C3PO), arXiv:2504.07964, kernel regression as released (tianyi-lab/C3PO).
template <class T>
class RoutingReferences {
 public:
  struct Options {
    Index embedding = 0;  ///< D
    Index layers = 0;
    Index experts = 0;    ///< E
    Index neighbors = 3;  ///< from 1
  };
  struct Neighbor {
    Index reference;  ///< in order of add()
    double similarity;
  };

  /// Throws Error(option) for a size below 1.
  explicit RoutingReferences(const Options& options) : options_(options) {
    require(std::min({options.embedding, options.layers, options.experts, options.neighbors}) >= 1, ErrorCode::option,
            "RoutingReferences: expected embedding, layers, experts and neighbors of at least 1, found ",
            options.embedding, ", ", options.layers, ", ", options.experts, ", ", options.neighbors);
  }

  const Options& options() const { return options_; }
  Index size() const { return Index(references_.size()); }

  /// weights [layers x E]; has_layer [layers], 0 where the reference says nothing and its row is not read, or empty: it
  /// has all layers. Throws Error(shape) for another size, Error(option) for an embedding without a finite length, or
  /// for weights of a layer whose sum is not finite and positive; then nothing was added.
  void add(std::span<const std::type_identity_t<T>> embedding, View<const std::type_identity_t<T>> weights,
           std::span<const std::uint8_t> has_layer = {}) {
    require_equal(ErrorCode::shape, "RoutingReferences: rows of the weights", options_.layers, weights.rows());
    require_equal(ErrorCode::shape, "RoutingReferences: columns of the weights", options_.experts, weights.cols());
    if (!has_layer.empty())
      require_equal(ErrorCode::shape, "RoutingReferences: size of has_layer", options_.layers, Index(has_layer.size()));
    Reference added{direction(embedding), {}};
    for (Index l = 0; l < options_.layers; ++l) {
      added.weights.emplace_back();
      if (!has_layer.empty() && !has_layer[std::size_t(l)]) continue;
      double sum = 0;
      for (const T weight : weights.row(l)) sum += double(weight);
      require(std::isfinite(sum) && sum > 0, ErrorCode::option,
              "RoutingReferences: expected weights of a finite, positive sum, found ", sum, " in layer ", l);
      added.weights.back().assign(weights.row(l).begin(), weights.row(l).end());
    }
    references_.push_back(std::move(added));
  }

  /// The references nearest to a prompt, the nearest first. Errors as of add().
  std::vector<Neighbor> nearest(std::span<const std::type_identity_t<T>> query) const {
    const std::vector<double> own = direction(query);
    std::vector<Neighbor> all;
    for (const Reference& one : references_)
      all.push_back({Index(all.size()), std::inner_product(own.begin(), own.end(), one.direction.begin(), 0.0)});
    std::ranges::stable_sort(all, [](const Neighbor& a, const Neighbor& b) { return a.similarity > b.similarity; });
    all.resize(std::min(all.size(), std::size_t(options_.neighbors)));
    return all;
  }

  /// The weights [E] of a layer. False, with `weights` as they were, if no neighbor has that layer or the sum of
  /// similarities or of weights is not positive: the layer keeps the prompt's own routing.
  /// Throws Error(option) for a layer or a reference that does not exist, Error(shape) for another size.
  bool regress(std::span<const Neighbor> neighbors, Index layer, std::span<std::type_identity_t<T>> weights) const {
    require(layer >= 0 && layer < options_.layers, ErrorCode::option, "RoutingReferences: expected a layer from 0 to ",
            options_.layers - 1, ", found ", layer);
    require_equal(ErrorCode::shape, "RoutingReferences: size of the weights", options_.experts, Index(weights.size()));
    std::vector<double> mean(weights.size());
    double similarities = 0, sum = 0;
    for (const Neighbor& neighbor : neighbors) {
      require(neighbor.reference >= 0 && neighbor.reference < size(), ErrorCode::option,
              "RoutingReferences: expected a reference from 0 to ", size() - 1, ", found ", neighbor.reference);
      const std::vector<T>& own = references_[std::size_t(neighbor.reference)].weights[std::size_t(layer)];
      if (own.empty()) continue;
      similarities += neighbor.similarity;
      for (std::size_t e = 0; e < own.size(); ++e) mean[e] += neighbor.similarity * double(own[e]);
    }
    for (const double weight : mean) sum += weight;
    if (!(similarities > 0) || !(sum > 0) || !std::isfinite(sum)) return false;
    for (std::size_t e = 0; e < mean.size(); ++e) weights[e] = T(mean[e] / sum);
    return true;
  }

 private:
  struct Reference {
    std::vector<double> direction;
    std::vector<std::vector<T>> weights;  ///< of each layer, or none
  };

  /// u of UnitVector.
  std::vector<double> direction(std::span<const T> embedding) const {
    require_equal(ErrorCode::shape, "RoutingReferences: size of the embedding", options_.embedding,
                  Index(embedding.size()));
    const UnitVector unit = UnitVector::of(embedding);
    require(std::isfinite(unit.length), ErrorCode::option,
            "RoutingReferences: expected an embedding of finite length, found ", unit.length);
    std::vector<double> scaled(embedding.begin(), embedding.end());
    for (double& number : scaled) number *= unit.scale();
    return scaled;
  }

  Options options_;
  std::vector<Reference> references_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
