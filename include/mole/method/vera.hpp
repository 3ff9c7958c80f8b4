// SPDX-License-Identifier: MIT
// vera(): VeRA, two trained vectors around a random pair that all layers share.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/shared_frozen.hpp"
#include "mole/method/one_adapter.hpp"

#include <memory>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Kopiczko et al. 2024 (VeRA), arXiv:2310.11454; released as huggingface/peft's VeRA. There is no alpha. The release
/// draws its pair with PyTorch's generator: to read its checkpoints, make the pair from the A and B that they hold.
struct VeraOptions {
  double start = 0.1;  ///< of lambda_d
  double dropout = 0;  ///< on the adapter's input
};

/// y = W x + b + lambda_b o (B (lambda_d o (A x))), with A and B of `pair`, which must be as wide as the base. Layers
/// of one model are given one pair:   FrozenPair<float>::random(256, largest in, largest out, generator)
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto vera(const VeraOptions& options, std::shared_ptr<const FrozenPair<typename Base::Scalar>> pair, Base base,
          Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<SharedFrozen<T>> experts({.in = base.in(),
                                    .out = base.out(),
                                    .pair = std::move(pair),
                                    .start = options.start,
                                    .dropout = {.rate = options.dropout, .stream = 1}},
                                   generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
