// SPDX-License-Identifier: MIT
// diffora(): DiffoRA, reconstructed: a search for the modules of a model that need a LoRA.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/module_router.hpp"

#include <memory>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// DiffoRA 2025, arXiv:2502.08905. A reconstruction from its abstract, in the manner of DARTS: neither text nor code of
/// the paper was at hand, and nothing here is checked against it.
///
/// One of these layers for each module of the model, all with the same gates. To search, alternate (BilevelTurns): A
/// and B of all layers on training data, the gates on validation data. Then gates->discretize(ratio), and fine-tune A
/// and B further: a module that was kept is a plain LoRA, one that was dropped its base. The paper's "weight sharing"
/// after that, which may be one LoRA for all dropped modules of a type, is left out: what it is could not be confirmed.
/// To merge a module that was kept, hand its experts to one_adapter(): merge_into() refuses this layer,
/// whose gates it takes to differ between tokens.
struct DifforaOptions {
  Index layer = 0;   ///< row of the gates
  Index module = 0;  ///< column
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;  ///< on the adapter's input
};

/// y = W x + b + g (alpha / rank) B A x, g the module's gate.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto diffora(const DifforaOptions& options, std::shared_ptr<const ModuleGates<typename Base::Scalar>> gates, Base base,
             Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  ModuleRouter<T> router(std::move(gates), options.layer, options.module);
  LowRank<DenseFactors<T>> experts({.in = base.in(),
                                    .out = base.out(),
                                    .experts = 1,
                                    .rank = options.rank,
                                    .alpha = options.alpha,
                                    .dropout = {.rate = options.dropout, .stream = 1}},
                                   generator);
  return MixtureLinear{std::move(router), Gate{Identity{}, All{}, Raw{}}, std::move(experts), std::move(base),
                       std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
