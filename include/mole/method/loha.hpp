// SPDX-License-Identifier: MIT
// loha(): LoHa, the element-wise product of two low-rank updates.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/hadamard_factors.hpp"
#include "mole/method/one_adapter.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Hyeon-Woo et al. 2022 (FedPara), arXiv:2108.06098; released as huggingface/peft's LoHa. The release holds the scale
/// in float32 whatever the layer's type.
struct LohaOptions {
  Index rank = 8;  ///< of each product; of both together rank^2
  double alpha = 8;
  double dropout = 0;  ///< on the adapter's input; peft has none
};

/// y = W x + b + (alpha / rank) ((W1a W1b) o (W2a W2b)) x.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto loha(const LohaOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LowRank<HadamardFactors<T>> experts({.in = base.in(),
                                       .out = base.out(),
                                       .rank = options.rank,
                                       .alpha = options.alpha,
                                       .dropout = {.rate = options.dropout, .stream = 1}},
                                      generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
