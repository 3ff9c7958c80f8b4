// SPDX-License-Identifier: MIT
// CoDyRA: a gated LoRA a task, of which the ranks that the task needs join the weight.
#pragma once

#include "mole/method/sora.hpp"

namespace mole {

/// Lu et al. 2024 (CoDyRA), arXiv:2412.01004; released as Artificer-AI-Lab/CoDyRA. Only the release was read.
///
/// SoRA's layer without a scale and without a term in the loss. In iteration t of a task, after an AdamW with beta2 =
/// 0.9999 and no decay on everything, soft_threshold(gate.elements(), ThresholdSchedule{}(t),
/// ThresholdMode::dead_zone); the exact mode is the proximal step that the release's three updates stand for. A gate of
/// 0 still gets a gradient, so it may come back. At the end of a task: merge_and_reset(layer, weight, generator).
struct CodyraOptions {
  Index in = 0;
  Index out = 0;
  Index rank = 16;     ///< of each task, to begin with
  double dropout = 0;  ///< on the adapter's input
  GateStart start = GateStart::normal;
};

template <class Base, class Execution = DefaultExecution>
using Codyra = Sora<Base, Execution>;

/// y = W x + b + B (g o (A x)).  merge_and_reset() needs a base whose weight can be written.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
Codyra<Base, Execution> codyra(const CodyraOptions& options, Base base, Generator& generator,
                               Execution execution = {}) {
  return sora({.in = options.in,
               .out = options.out,
               .rank = options.rank,
               .alpha = double(options.rank),  // alpha / rank = 1
               .dropout = options.dropout,
               .start = options.start},
              std::move(base), generator, std::move(execution));
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
Codyra<DenseBase<View<const T>>, Execution> codyra(const CodyraOptions& options, ConstView<T> weight,
                                                   Generator& generator, ConstView<T> bias = {},
                                                   Execution execution = {}) {
  return codyra(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
