// SPDX-License-Identifier: MIT
// adalora(): AdaLoRA, triplets of a singular value decomposition that a budget thins out.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/triplet_factors.hpp"
#include "mole/method/one_adapter.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Zhang et al. 2023 (AdaLoRA), arXiv:2303.10512; released as huggingface/peft's AdaLoRA.
///
/// In training, orthogonality() with a coefficient of 0.5 joins the loss, and after each step of the optimizer a
/// RankAllocator over all layers sets the E of the least important triplets to 0.
struct AdaloraOptions {
  Index rank = 12;  ///< initially; the allocator's target is 8
  double alpha = 8;
  double dropout = 0;  ///< on the adapter's input
};

/// y = W x + b + alpha / (rank + 1e-5) B (E o (A x)).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto adalora(const AdaloraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<TripletFactors<T>> experts({.in = base.in(),
                                      .out = base.out(),
                                      .rank = options.rank,
                                      .alpha = options.alpha,
                                      .dropout = {.rate = options.dropout, .stream = 1}},
                                     generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
