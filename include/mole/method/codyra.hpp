// SPDX-License-Identifier: MIT
// codyra(): CoDyRA, one gated LoRA per task; the ranks that survive are merged into the weight.
#pragma once

#include "mole/method/sora.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Lu et al. 2024 (CoDyRA), arXiv:2412.01004; released as Artificer-AI-Lab/CoDyRA.
/// Written from the release alone.
///
/// SoRA's layer without a scale and without a term in the loss. In iteration t of a task, after a step of AdamW with
/// beta2 = 0.9999 and no decay on all parameters:
///     soft_threshold(gate.elements(), ThresholdSchedule{}(t), ThresholdMode::dead_zone)
/// The exact mode is the proximal step that the release's three updates stand for. A gate of 0 still gets a gradient,
/// so it may recover. At the end of a task: merge_and_reset(layer, weight, generator).
struct CodyraOptions {
  Index rank = 16;     ///< initial ranks of each task
  double dropout = 0;  ///< on the adapter's input
  GateStart start = GateStart::normal;
};

/// y = W x + b + B (g o (A x)).  merge_and_reset() needs a base whose weight can be written.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto codyra(const CodyraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  return sora({.rank = options.rank,
               .alpha = double(options.rank),  // alpha / rank = 1
               .dropout = options.dropout,
               .start = options.start},
              std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
