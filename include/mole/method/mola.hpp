// SPDX-License-Identifier: MIT
// mola(): MoLA, the k best of E LoRA experts for each token.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Gao et al. 2024 (MoLA), arXiv:2402.08562; released as GCYZSL/MoLA. The same composition, with other balance losses,
/// is MoLE-top-k (AdaMoLE's baseline), and, without a base, the routing of Mixtral and Uni-MoE.
/// Its loss: load_balance, BalanceNorm::one_at_uniform, coefficient 1e-3, off in the release.
struct MolaOptions {
  Index experts = 8;
  Index rank = 8;
  Index k = 2;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over the k largest p_e of p_e / (their sum) s B_e A_e x,  p = softmax(R x).  Any base will do:
/// packed, quantized, a function.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto mola(const MolaOptions& options, Base base, Generator& generator, Execution execution = {}) {
  return lora_mixture(options, Gate{Softmax{}, TopK{.k = options.k}, Renormalized{}}, std::move(base), generator,
                      std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
