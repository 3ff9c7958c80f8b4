// SPDX-License-Identifier: MIT
// LoRA: one low-rank update, the same for every token.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/all.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/identity.hpp"
#include "mole/gating/unit.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/dense_factors_for.hpp"
#include "mole/router/no_router.hpp"

namespace mole {

/// Hu et al. 2021 (LoRA), arXiv:2106.09685; Kalajdzievski 2023 (rsLoRA), arXiv:2312.03732.
struct LoraOptions {
  Index in = 0;
  Index out = 0;
  Index rank = 8;
  double alpha = 8;
  Scaling scaling = Scaling::alpha_over_rank;  ///< alpha_over_sqrt_rank: rsLoRA
  double dropout = 0;                          ///< on the adapter's input
};

template <class T, class Execution = DefaultExecution>
using Lora = MixtureLinear<NoRouter<T>, Gate<Identity, All, Unit>, LowRank<DenseFactors<T>>, DenseBase<View<const T>>,
                           Execution>;

/// y = W x + b + s B A x.   weight [O x I] is borrowed, and so is bias [1 x O], which may be empty
template <class T, class Generator, class Execution = DefaultExecution>
Lora<T, Execution> lora(const LoraOptions& options, ConstView<T> weight, Generator& generator, ConstView<T> bias = {},
                        Execution execution = {}) {
  return {NoRouter<T>(1), Gate{Identity{}, All{}, Unit{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), DenseBase(weight, bias),
          std::move(execution)};
}

}  // namespace mole
