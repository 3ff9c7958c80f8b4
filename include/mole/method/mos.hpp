// SPDX-License-Identifier: MIT
// mos(): MoS, a LoRA put together from the shards of a pool that many layers share.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/shard_factors.hpp"
#include "mole/method/one_adapter.hpp"

#include <memory>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Wang et al. 2025 (MoS), arXiv:2410.00938; released as Forence1999/MoS, whose MoS is modules/Tied_LoRA.py. Ranks,
/// shards and the budget are those of the pool, one for each type of layer. The release's random scaling vectors are
/// fixed at 1, and are left out.
struct MosOptions {
  Index layer = 0;  ///< which of the pool's layers: whose private shards
  double alpha = 16;
  double dropout = 0.1;  ///< on the adapter's input
};

/// y = W x + b + (alpha / r) B A x, with the A and B of the pool's shards. Throws Error(shape) unless pool and base
/// have equal inputs and outputs.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto mos(const MosOptions& options, std::shared_ptr<const ShardPool<typename Base::Scalar>> pool, Base base,
         Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<ShardFactors<T>> experts({.pool = std::move(pool),
                                    .layer = options.layer,
                                    .alpha = options.alpha,
                                    .dropout = {.rate = options.dropout, .stream = 1}},
                                   generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
