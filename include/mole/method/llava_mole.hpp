// SPDX-License-Identifier: MIT
// llava_mole(): LLaVA-MoLE, one LoRA expert per token, chosen once for a whole feed-forward block.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Chen et al. 2024 (LLaVA-MoLE), arXiv:2401.16160; released as forwchen/LLaVA-MoLE.
///
/// The gate of the chosen expert is 1, not its probability, so the output gives the router no gradient: it learns from
/// load_balance with BalanceNorm::without_experts, BalanceScope::sequence, coefficient 1e-2. One layer of a block
/// routes; its siblings use that routing through apply() and apply_backward(). The release runs its inference script
/// densely: that is loramoe() with a biased router. Rank 32 and alpha 64 are that script's; the published checkpoint is
/// named for an alpha of 16, and the paper has both.
struct LlavaMoleOptions {
  Index experts = 3;
  Index rank = 32;
  double alpha = 64;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + s B_i A_i x,  i = argmax(R x + c).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto llava_mole(const LlavaMoleOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LinearRouter<T> router({.in = base.in(), .experts = options.experts, .bias = true}, generator);
  return lora_mixture(options, std::move(router), Gate{Softmax{}, TopK{.k = 1}, Unit{}}, std::move(base), generator,
                      std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
