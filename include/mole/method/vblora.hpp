// SPDX-License-Identifier: MIT
// vblora(): VB-LoRA, a LoRA whose pieces are mixtures of the vectors of a bank that all layers share.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/bank_mixture.hpp"
#include "mole/method/one_adapter.hpp"

#include <memory>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Li et al. 2024 (VB-LoRA), arXiv:2405.15179; released as huggingface/peft's VBLoRA. There is no alpha, and a fresh
/// layer changes the base's output.
struct VbloraOptions {
  Index rank = 4;
  Index k = 2;             ///< vectors of a piece
  double deviation = 0.1;  ///< of fresh logits
  double dropout = 0;      ///< on the adapter's input
};

/// y = W x + b + B A x, with A and B of mixed vectors.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto vblora(const VbloraOptions& options, std::shared_ptr<const VectorBank<typename Base::Scalar>> bank, Base base,
            Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<BankMixture<T>> experts({.in = base.in(),
                                   .out = base.out(),
                                   .rank = options.rank,
                                   .k = options.k,
                                   .bank = std::move(bank),
                                   .deviation = options.deviation,
                                   .dropout = {.rate = options.dropout, .stream = 1}},
                                  generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
