// SPDX-License-Identifier: MIT
// mole_threshold(): MoLE with a threshold, every LoRA expert that is probable enough.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The baseline of AdaMoLE: Liu and Luo 2024, arXiv:2405.00361; released in zefang-liu/AdaMoLE. A token for which no
/// expert is probable enough keeps the base's output; with a threshold of 1 / E or less there is no such token.
/// Its loss: load_balance with BalanceNorm::k_at_uniform.
struct MoleThresholdOptions {
  Index experts = 8;
  Index rank = 8;
  double threshold = 0.125;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over p_e >= threshold of p_e / (their sum) s B_e A_e x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto mole_threshold(const MoleThresholdOptions& options, Base base, Generator& generator, Execution execution = {}) {
  return lora_mixture(options, Gate{Softmax{}, Threshold{.threshold = options.threshold}, Renormalized{}},
                      std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
