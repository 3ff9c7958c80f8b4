// SPDX-License-Identifier: MIT
// mixtral(): Mixtral, experts that are whole feed-forward blocks with weights of their own.
#pragma once

#include "mole/base/no_base.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/feed_forward_experts.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/maps/dense_maps.hpp"
#include "mole/router/linear_router.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Jiang et al. 2024 (Mixtral of Experts), arXiv:2401.04088; released in huggingface/transformers.
///
/// The blocks of OLMoE and DeepSeekMoE are the same under other gates: Gate<Softmax, TopK, Raw>, which for DeepSeekMoE
/// has shared experts, the last ones, of the same width. Its loss: load_balance, BalanceNorm::k_at_uniform,
/// coefficient 1e-3. The weights of a checkpoint go to experts().gate(), up() and down(): w1, w3 and w2.
struct MixtralOptions {
  Index in = 0;      ///< and out
  Index hidden = 0;  ///< inside of each block
  Index experts = 8;
  Index k = 2;  ///< of the default gate
};

/// y = sum over the experts e that `gating` chooses of   gate_e W2_e (act(W1_e x) o W3_e x)
///
/// There is no base: a token that nobody serves gets 0. Throws Error(option) for sizes below 1.
template <class T, class Activation = SiLU, class Gating, class Generator, class Execution = DefaultExecution>
requires GatingPolicy<Gating, T>
auto mixtral(const MixtralOptions& options, Gating gating, Generator& generator, Execution execution = {}) {
  const auto map = [&](Index in, Index out) {
    return ExpertProjection{MapExperts<DenseMaps<T>>({.in = in, .out = out, .experts = options.experts}, generator),
                            NoBase<T>(in, out)};
  };
  LinearRouter<T> router({.in = options.in, .experts = gating.columns(options.experts)}, generator);
  auto gate = map(options.in, options.hidden), up = map(options.in, options.hidden),
       down = map(options.hidden, options.in);
  return MixtureLinear{std::move(router), std::move(gating),
                       FeedForwardExperts{std::move(gate), std::move(up), std::move(down), Activation{}},
                       NoBase<T>(options.in, options.in), std::move(execution)};
}

/// ... of the k best, whose gates are their shares of the softmax.
template <class T, class Activation = SiLU, class Generator, class Execution = DefaultExecution>
requires std::uniform_random_bit_generator<Generator>
auto mixtral(const MixtralOptions& options, Generator& generator, Execution execution = {}) {
  return mixtral<T, Activation>(options, Gate{Softmax{}, TopK{.k = options.k}, Renormalized{}}, generator,
                                std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
