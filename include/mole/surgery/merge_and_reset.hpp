// SPDX-License-Identifier: MIT
// merge_and_reset(): ends a task in continual learning: merges the adapter into the weight and starts it anew.
#pragma once

#include "mole/surgery/merge.hpp"

#include <random>

#include "mole/core/macros_off.hpp"

namespace mole {

/// weight += the update of `layer`'s experts, which are then reinitialized; weight -= the update that fresh ones have,
/// 0 for all that start with B = 0.   weight [O x I]
///
/// `weight` is the one that the layer's base uses: the host's own memory for a base that borrows it,
/// layer.base().parameters().weight for one that owns it. A base that computes from a copy, packed or encoded, would go
/// on without the adapter. The layer's function does not change at that moment, except for the rounding of the sums.
/// Ranks whose gate is 0 add nothing; to archive the others, call
/// fold_gate(prune_zero_ranks(experts)) before. An optimizer's moments belong to the old task: make a new one.
/// Throws Error(not_mergeable) with the layer's own reason, or if the base does not compute from `weight`, or
/// Error(shape); then nothing has changed.
/// Source: Lu et al. 2024 (CoDyRA), arXiv:2412.01004; Artificer-AI-Lab/CoDyRA, loralib/codyra.py, increment_task.
template <class Layer, std::uniform_random_bit_generator Generator>
void merge_and_reset(Layer& layer, View<typename Layer::Scalar> weight, Generator& generator) {
  detail::require_mergeable(layer, weight);
  const void* base = nullptr;
  if constexpr (requires { layer.base().weight().data(); }) base = layer.base().weight().data();
  require(base == weight.data(), ErrorCode::not_mergeable,
          "merge_and_reset: expected the weight that the layer's base computes from, found another, or a base that "
          "computes from a copy");
  detail::add_update(layer, 1, weight);
  layer.experts().reset(generator);
  detail::add_update(layer, -1, weight);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
