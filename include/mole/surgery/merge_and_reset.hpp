// SPDX-License-Identifier: MIT
// The end of a task in continual learning: what was learned joins the weight, and the adapter starts anew.
#pragma once

#include "mole/surgery/merge.hpp"

#include <random>

namespace mole {

/// weight += the update of `layer`'s experts, whose factors then start anew with a B of zeros.   weight [O x I]
///
/// `weight` is what the layer's base computes with: the host's own memory for a base that borrows it,
/// layer.base().parameters().weight for one that owns it. The layer's function is unchanged at that instant, but for
/// the rounding of the sum. Ranks whose gate is 0 add nothing; fold_gate(prune_zero_ranks(experts)), taken before, is
/// an archive of the others. An optimizer's moments belong to the old task: make a new one.
/// Throws Error(not_mergeable) with the layer's own reason, or Error(shape), and nothing has changed.
/// Source: Lu et al. 2024 (CoDyRA), arXiv:2412.01004; Artificer-AI-Lab/CoDyRA, loralib/codyra.py, increment_task.
template <class Layer, std::uniform_random_bit_generator Generator>
void merge_and_reset(Layer& layer, View<typename Layer::Scalar> weight, Generator& generator) {
  merge_into(layer, weight);
  layer.experts().reset(generator);
}

}  // namespace mole
