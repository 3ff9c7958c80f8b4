// SPDX-License-Identifier: MIT
// lora_mixture(): LoRA experts of two dense factors, behind a router and a gating: most methods.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/linear_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = W x + b + sum over the experts e that `gating` chooses of gate_e s B_e A_e x, from the logits of `router`.
///
/// The experts fit the base and have those of `options` that methods share by name; what a method does not have takes
/// its default. Throws Error(option) for options out of range.
template <class Options, RouterPolicy Router, class Gating, BasePolicy Base, class Generator, class Execution>
auto lora_mixture(const Options& options, Router router, Gating gating, Base base, Generator& generator,
                  Execution execution) {
  using Factors = DenseFactors<typename Base::Scalar>;
  typename Factors::Options factors{.in = base.in(),
                                    .out = base.out(),
                                    .rank = options.rank,
                                    .alpha = options.alpha,
                                    .dropout = {.rate = options.dropout, .stream = 1}};
  if constexpr (requires { options.experts; }) factors.experts = options.experts;
  if constexpr (requires { options.scaling; }) factors.scaling = options.scaling;
  if constexpr (requires { options.shared_down; }) factors.shared_down = options.shared_down;
  LowRank<Factors> experts(factors, generator);
  return MixtureLinear{std::move(router), std::move(gating), std::move(experts), std::move(base), std::move(execution)};
}

/// ... with a linear router, R x, as most methods have.
template <class Options, class Gating, BasePolicy Base, class Generator, class Execution>
auto lora_mixture(const Options& options, Gating gating, Base base, Generator& generator, Execution execution) {
  LinearRouter<typename Base::Scalar> router({.in = base.in(), .experts = gating.columns(options.experts)}, generator);
  return lora_mixture(options, std::move(router), std::move(gating), std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
