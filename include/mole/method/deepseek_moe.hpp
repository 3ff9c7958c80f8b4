// SPDX-License-Identifier: MIT
// deepseek_moe(): DeepSeekMoE, many small LoRA experts and some shared ones that always serve.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/method/lora_mixture.hpp"

#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The gates of the k best: the probabilities as they are, or shares of their sum. The release divides on request
/// (norm_topk_prob), and not in deepseek-moe of 16B parameters; a single gate it always leaves as it is.
enum class DeepseekMoeGates { raw, renormalized };

/// Dai et al. 2024 (DeepSeekMoE), arXiv:2401.06066; its experts are feed-forward networks, here LoRA pairs.
/// Fine-grained means a small rank: splitting N experts into m parts each gives mN experts of rank / m, of which k m
/// are chosen. Numbers of experts are those of the release of 16B parameters, 64 routed and 2 shared; ranks are small,
/// as their sum is 132.
/// Shared experts come last, have no score and gate 1.
/// Its loss: load_balance, coefficient 1e-3 to 1e-2, BalanceScope::global or sequence.
struct DeepseekMoeOptions {
  Index experts = 66;  ///< including the shared ones
  Index shared = 2;
  Index rank = 2;
  Index k = 6;
  double alpha = 4;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over the k largest p_e of p_e s B_e A_e x + sum over the shared of s B_e A_e x,  p = softmax(R x).
/// With DeepseekMoeGates::renormalized, throws Error(option) for k = 1.
template <DeepseekMoeGates gates = DeepseekMoeGates::raw, BasePolicy Base, class Generator,
          class Execution = DefaultExecution>
auto deepseek_moe(const DeepseekMoeOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using Weigh = std::conditional_t<gates == DeepseekMoeGates::raw, Raw, Renormalized>;
  require(gates == DeepseekMoeGates::raw || options.k > 1, ErrorCode::option,
          "deepseek_moe: expected k above 1 for renormalized gates, as a single one stays as it is, found ", options.k);
  return lora_mixture(options, Gate{Softmax{}, TopK{.k = options.k}, Weigh{}, options.shared}, std::move(base),
                      generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
