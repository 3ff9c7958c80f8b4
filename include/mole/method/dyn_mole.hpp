// SPDX-License-Identifier: MIT
// dyn_mole(): DynMoLE, few LoRA experts for a confident token, all for an undecided one.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/entropy_hybrid.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Li et al. 2025 (DynMoLE), arXiv:2504.00661; released as mikecovlee/DynMoLE, which leaves out the expert that crosses
/// p, shifts probabilities by 1e-5 in the entropy, and computes all experts, chosen or not.
/// Its losses: router_entropy with the same entropy, normalized, coefficient 1e-2, and load_balance with
/// BalanceNorm::k_at_uniform and BalanceCount::gates, 1e-3.
struct DynMoleOptions {
  Index experts = 6;
  Index rank = 24;
  double p = 0.75;
  Index keep_top_k = 2;
  double entropy_threshold = 0.9;  ///< of the normalized entropy; 1 or more: never all experts
  Entropy entropy{.order = 1.1, .shift = 1e-5, .offset = 1e-10};
  double alpha = 48;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over the chosen of p_e s B_e A_e x,  p = softmax(R x); for the selection see EntropyHybrid.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto dyn_mole(const DynMoleOptions& options, Base base, Generator& generator, Execution execution = {}) {
  return lora_mixture(options,
                      Gate{Softmax{},
                           EntropyHybrid{.confident = {.p = options.p, .crossing = false, .min_k = options.keep_top_k},
                                         .threshold = options.entropy_threshold,
                                         .entropy = options.entropy},
                           Raw{}},
                      std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
