// SPDX-License-Identifier: MIT
// dynamic_moe(): Dynamic MoE, as many LoRA experts as a token needs.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Huang et al. 2024 (Dynamic_MoE, "Harder Tasks Need More Experts"), arXiv:2403.07652; released as
/// ZhenweiAn/Dynamic_MoE, whose experts are whole feed-forward networks. Paper and release differ if a sum equals p
/// exactly: the paper stops there (strict = false), the release goes on. Its "temperature", 1 there, is
/// Softmax::divisor. MixLoRA-dynamic (TUDB-Labs/MoE-PEFT) has the same gating with p = 0.8.
/// Its losses: load_balance with BalanceNorm::k_at_uniform, coefficient 1e-2, and router_entropy, 1e-4.
struct DynamicMoeOptions {
  Index experts = 16;
  Index rank = 8;
  double p = 0.4;
  bool strict = true;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over the best p_e, until their sum passes `p`, of p_e s B_e A_e x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto dynamic_moe(const DynamicMoeOptions& options, Base base, Generator& generator, Execution execution = {}) {
  return lora_mixture(options, Gate{Softmax{}, TopP{.p = options.p, .strict = options.strict}, Raw{}}, std::move(base),
                      generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
