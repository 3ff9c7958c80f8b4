// SPDX-License-Identifier: MIT
// merge_into(), can_merge(), merge_obstacle(): a layer's experts as part of one weight.
#pragma once

#include "mole/core/error.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/gating/gating_policy.hpp"

#include <string>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Why the experts of `layer` cannot become part of one weight; empty when they can.
template <class Layer>
std::string merge_obstacle(const Layer& layer) {
  using Experts = std::remove_cvref_t<decltype(layer.experts())>;
  if constexpr (!MergeableExpertPolicy<Experts>)
    return "its experts are not linear maps";
  else if constexpr (!requires { layer.gating(); })
    return "its routing comes from outside";
  else if constexpr (!ConstantGatingPolicy<std::remove_cvref_t<decltype(layer.gating())>>)
    return "its gating gives each token gates of its own";
  else
    return layer.gating().token_dependence(layer.experts().experts());
}

/// Has the layer one weight for all tokens? merge_obstacle() says why not.
template <class Layer>
bool can_merge(const Layer& layer) {
  return merge_obstacle(layer).empty();
}

namespace detail {
/// Throws unless the experts of `layer` can become part of `weight`.
template <class Layer>
void require_mergeable(const Layer& layer, View<typename Layer::Scalar> weight) {
  require_equal(ErrorCode::shape, "merge_into: rows of the weight", layer.out(), weight.rows());
  require_equal(ErrorCode::shape, "merge_into: columns of the weight", layer.in(), weight.cols());
  const std::string obstacle = merge_obstacle(layer);
  require(obstacle.empty(), ErrorCode::not_mergeable, "merge_into: this layer cannot be merged: ", obstacle);
}

/// weight += sign * the sum of all experts of a layer that can be merged.
template <class Layer>
void add_update(const Layer& layer, double sign, View<typename Layer::Scalar> weight) {
  if constexpr (requires {
                  layer.gating().constant_gate(Index(1));
                  layer.experts().add_delta(Index(0), 1.0, weight);
                }) {
    const double gate = sign * layer.gating().constant_gate(layer.experts().experts()).value();
    for (Index e = 0; e < layer.experts().experts(); ++e) layer.experts().add_delta(e, gate, weight);
  }
}
}  // namespace detail

/// weight += the sum of all experts of `layer`, so that a plain linear layer with it computes the same as the layer.
///
///   weight [O x I]
///
/// Error: the rounding of the sum. Throws Error(not_mergeable) with the reason, or Error(shape); the weight is then
/// unchanged.  O(ranks I O).
template <class Layer>
void merge_into(const Layer& layer, View<typename Layer::Scalar> weight) {
  detail::require_mergeable(layer, weight);
  detail::add_update(layer, 1, weight);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
