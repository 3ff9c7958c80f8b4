// SPDX-License-Identifier: MIT
// noisy_top_k(): the sparsely gated mixture, the k best experts of noisy logits.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/router/noisy_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Shazeer et al. 2017, arXiv:1701.06538, with LoRA experts. Both weights of the router start at 0, as there: the noise
/// alone chooses at first. Its losses: importance_cv2, and the same of the load, coefficient 0.1 each.
///
/// The common port, davidmrau/mixture-of-experts, has a floor of 0.01, divides gates by their sum + 1e-6, and compares
/// logits with thresholds that are softmax scores in its load.
struct NoisyTopKOptions {
  Index experts = 8;
  Index rank = 8;
  Index k = 4;
  double floor = 0;  ///< of the deviation of the noise
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input
};

/// y = W x + b + sum over the k largest h_e of softmax_e(h over the chosen) s B_e A_e x,
/// h = R x + noise (floor + softplus(R_noise x)) in training, R x otherwise.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto noisy_top_k(const NoisyTopKOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  LinearRouter<T> clean({.in = base.in(), .experts = options.experts}, generator);
  clean.parameters().weight.set_zero();
  return lora_mixture(options, NoisyRouter(std::move(clean), {.learned = true, .floor = options.floor}),
                      Gate{Softmax{}, TopK{.k = options.k}, Renormalized{}}, std::move(base), generator,
                      std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
