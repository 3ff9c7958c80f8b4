// SPDX-License-Identifier: MIT
// ld_mole(): LD-MoLE, sparse mixtures whose sparsity is learned per token.
#pragma once

#include "mole/gating/score/learned_sparsegen.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/router/joined_router.hpp"
#include "mole/router/mlp_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Zhuang et al. 2025 (LD-MoLE), arXiv:2509.25684; released as eshentw/LD-MoLE, where all layers of one width share the
/// network of lambda, and where the router sees x as the adapters do, after dropout. Here both are up to the caller:
/// the first with a router of the caller's own, the second with dropout left at 0.
/// The release starts the last bias of lambda's network at -2.5, so that a fresh layer mixes more experts:
/// layer.router().second().parameters().output.bias; here it starts as any, at about 0.
/// Its losses: load_balance over the gates, router_z, and sparsity_target.
struct LdMoleOptions {
  Index experts = 8;
  Index rank = 8;
  Index hidden = 64;  ///< width of the hidden layer of lambda's network
  double epsilon = 0.01;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over g_e > 0 of g_e s B_e A_e x,  g = sparsegen(R x, lambda),
///     lambda = log(sigmoid(mlp(x))) + 1 - epsilon.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto ld_mole(const LdMoleOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  MlpRouter<T> lambda({.in = base.in(), .hidden = options.hidden, .experts = 1}, generator);
  LinearRouter<T> router({.in = base.in(), .experts = options.experts}, generator);
  return lora_mixture(options, JoinedRouter(std::move(router), std::move(lambda)),
                      Gate{LearnedSparsegen{options.epsilon}, Threshold{.threshold = 0, .strict = true}, Raw{}},
                      std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
