// SPDX-License-Identifier: MIT
// mixlora(): MixLoRA, experts that are a whole frozen feed-forward block, each with LoRA of its own.
#pragma once

#include "mole/base/no_base.hpp"
#include "mole/core/random.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/feed_forward_experts.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/linear_router.hpp"

#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Li et al. 2024 (MixLoRA), arXiv:2404.15159; released as TUDB-Labs/MixLoRA and in TUDB-Labs/MoE-PEFT.
///
/// Rank 8 and alpha 16 are those of the release's page; the templates of MoE-PEFT have 16 and 32, the same scale at
/// twice the size. The router starts as N(0, 0.02^2), as in both releases; MixLoRA-Switch draws it with a deviation
/// of 1. In training the release multiplies x by jitter, before router and experts alike, which is the host's to do; it
/// is off unless asked for. Its loss: load_balance, BalanceNorm::k_at_uniform, coefficient 1e-3. Its variants are other
/// gates: Gate<Softmax, TopP, Raw> (MixLoRA-dynamic, p = 0.8), Gate<Softmax, ExpertCapacity<TopK>, Raw>
/// (MixLoRA-Switch, k = 1 and 32 places a sequence, where a token without place gets x times its best score from the
/// host; by the release, that layer ignores its experts in evaluation, here it does not).
struct MixLoraOptions {
  Index experts = 8;
  Index k = 2;  ///< of the default gate
  Index rank = 8;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the input of each adapter
  double router_deviation = 0.02;
};

/// y = sum over the experts e that `gating` chooses of
///     gate_e down_e(act(gate_e x) o up_e x),   each map W x + b + s B_e A_e x on the W of the frozen block
///
/// The block's maps `gate`, `up` and `down` are bases of one type. Fresh, with gates that sum to 1, it is the block.
/// Throws Error(shape) unless the maps fit each other, Error(option) for a negative deviation of the router.
template <class Activation = SiLU, class Gating, BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto mixlora(const MixLoraOptions& options, Gating gating, Base gate, Base up, Base down, Generator& generator,
             Execution execution = {}) {
  using T = typename Base::Scalar;
  require(options.router_deviation >= 0 && std::isfinite(options.router_deviation), ErrorCode::option,
          "mixlora: expected a router_deviation of 0 or more, found ", options.router_deviation);
  const auto adapted = [&](Base& base) {
    LowRank<DenseFactors<T>> experts({.in = base.in(),
                                      .out = base.out(),
                                      .experts = options.experts,
                                      .rank = options.rank,
                                      .alpha = options.alpha,
                                      .scaling = options.scaling,
                                      .dropout = {.rate = options.dropout, .stream = 1}},
                                     generator);
    return ExpertProjection{std::move(experts), std::move(base)};
  };
  const Index in = gate.in(), out = down.out();
  LinearRouter<T> router({.in = in, .experts = gating.columns(options.experts)}, generator);
  for (T& number : router.parameters().weight.elements())
    number = T(options.router_deviation * standard_normal(generator));
  auto gate_map = adapted(gate), up_map = adapted(up), down_map = adapted(down);
  return MixtureLinear{std::move(router), std::move(gating),
                       FeedForwardExperts{std::move(gate_map), std::move(up_map), std::move(down_map), Activation{}},
                       NoBase<T>(in, out), std::move(execution)};
}

/// ... of the k best, whose gates are their shares of the softmax.
template <class Activation = SiLU, BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto mixlora(const MixLoraOptions& options, Base gate, Base up, Base down, Generator& generator,
             Execution execution = {}) {
  return mixlora<Activation>(options, Gate{Softmax{}, TopK{.k = options.k}, Renormalized{}}, std::move(gate),
                             std::move(up), std::move(down), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
