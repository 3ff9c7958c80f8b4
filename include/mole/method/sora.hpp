// SPDX-License-Identifier: MIT
// sora(): SoRA, one LoRA whose ranks can be switched off for good.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/gated_ranks.hpp"
#include "mole/method/one_adapter.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Ding et al. 2023 (SoRA), arXiv:2311.11696; released as TsinghuaC3I/SoRA.
///
/// After each step of an AdamW without decay on the gate: soft_threshold(gate.elements(), xi). The paper's xi is the
/// learning rate times lambda and its step is exact. The release takes xi = 3e-4 unscaled, with
/// ThresholdMode::dead_zone, also adds lambda |g| / (number of gates of the model), lambda = 10, to the loss, and has
/// AdamW's epsilon of 1e-6 on_raw. threshold_stages() are its schedules.
/// At the end: fold_gate(prune_zero_ranks(layer.experts())).
struct SoraOptions {
  Index rank = 8;  ///< initially
  double alpha = 16;
  double dropout = 0;  ///< on the adapter's input
  GateStart start = GateStart::normal;
};

/// y = W x + b + (alpha / rank) B (g o (A x)).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto sora(const SoraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<GatedRanks<T>> experts({.in = base.in(),
                                  .out = base.out(),
                                  .rank = options.rank,
                                  .alpha = options.alpha,
                                  .dropout = {.rate = options.dropout, .stream = 1},
                                  .start = options.start},
                                 generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
