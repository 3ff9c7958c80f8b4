// SPDX-License-Identifier: MIT
// ada_mole(): AdaMoLE, LoRA experts above a threshold that is learned per token.
#pragma once

#include "mole/gating/score/softmax_with_threshold.hpp"
#include "mole/gating/select/learned_threshold.hpp"
#include "mole/gating/weigh/shifted.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/router/joined_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Liu and Luo 2024 (AdaMoLE), arXiv:2405.00361; released as zefang-liu/AdaMoLE.
/// Its loss: load_balance over the scores minus the threshold (BalanceScore::above_threshold).
struct AdaMoleOptions {
  Index experts = 8;
  Index rank = 8;
  double max_threshold = 0;  ///< 0: 1 / E, with which every token is certain to keep an expert
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over p_e >= t of (p_e - t) / (their sum) s B_e A_e x,
///     p = softmax(R x),  t = max_threshold sigmoid(v x + c).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto ada_mole(const AdaMoleOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LinearRouter<T> threshold({.in = base.in(), .experts = 1, .bias = true}, generator);
  LinearRouter<T> router({.in = base.in(), .experts = options.experts}, generator);
  return lora_mixture(options, JoinedRouter(std::move(router), std::move(threshold)),
                      Gate{SoftmaxWithThreshold{options.max_threshold}, LearnedThreshold{}, Shifted{}}, std::move(base),
                      generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
