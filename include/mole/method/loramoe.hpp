// SPDX-License-Identifier: MIT
// loramoe(): LoRAMoE and HydraLoRA, all experts for every token, mixed by a softmax.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Dou et al. 2023 (LoRAMoE), arXiv:2312.09979, with the loss localized_balance; Tian et al. 2024 (HydraLoRA),
/// arXiv:2404.19245, whose experts share one down-projection. Rank 4 and alpha 32 are those of LoRAMoE's paper; the
/// template of MoE-PEFT has 24 and 48.
struct LoramoeOptions {
  Index experts = 6;
  Index rank = 4;
  double alpha = 32;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;     ///< on the adapters' input; the router sees x without dropout
  bool shared_down = false;  ///< true: HydraLoRA
};

/// y = W x + b + sum_e p_e s B_e A_e x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto loramoe(const LoramoeOptions& options, Base base, Generator& generator, Execution execution = {}) {
  return lora_mixture(options, Gate{Softmax{}, All{}, Raw{}}, std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
