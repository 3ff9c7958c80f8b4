// SPDX-License-Identifier: MIT
// LoRA: one low-rank update, the same for every token.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/unit.hpp"
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

template <class Base, class Execution = DefaultExecution>
using Lora = MixtureLinear<NoRouter<typename Base::Scalar>, Gate<Identity, All, Unit>,
                           LowRank<DenseFactors<typename Base::Scalar>>, Base, Execution>;

/// y = W x + b + s B A x.  The base is any of yours: packed, quantized, a function.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
Lora<Base, Execution> lora(const LoraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return {NoRouter<T>(1), Gate{Identity{}, All{}, Unit{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
Lora<DenseBase<View<const T>>, Execution> lora(const LoraOptions& options, ConstView<T> weight, Generator& generator,
                                               ConstView<T> bias = {}, Execution execution = {}) {
  return lora(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
