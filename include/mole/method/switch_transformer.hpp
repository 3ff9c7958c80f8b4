// SPDX-License-Identifier: MIT
// switch_transformer(): Switch's routing, the best of E LoRA experts for each token, as far as its capacity goes.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/expert_capacity.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Fedus et al. 2021 (Switch), arXiv:2101.03961; its experts are feed-forward networks, here LoRA pairs.
///
/// The default capacity is the paper's, of a call; transformers has a fixed one for each sequence:
/// {.fixed = 64, .per_sequence = true}. A token beyond the capacity keeps the base's output, which is what the paper's
/// residual connection gives it; older releases of transformers, and MixLoRA-switch, let it pass as p x instead.
/// Its losses: load_balance with BalanceCount::first_choice, coefficient 1e-2 (transformers 1e-3, per sequence, where a
/// dropped token counts as one of expert 0: first_choice_if_served); router_z in transformers, 1e-3.
struct SwitchTransformerOptions {
  Index experts = 8;
  Index rank = 8;
  CapacityOptions capacity = {.factor = 1.25, .priority = CapacityPriority::token, .rounding = CapacityRounding::down};
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + p_e s B_e A_e x for the largest p_e, if expert e has capacity for x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto switch_transformer(const SwitchTransformerOptions& options, Base base, Generator& generator,
                        Execution execution = {}) {
  return lora_mixture(options, Gate{Softmax{}, ExpertCapacity{TopK{1}, options.capacity}, Raw{}}, std::move(base),
                      generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
