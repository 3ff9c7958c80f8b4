// SPDX-License-Identifier: MIT
// LoRAMoE and HydraLoRA: all experts for every token, mixed by a softmax.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/dense_factors_for.hpp"
#include "mole/router/linear_router.hpp"

namespace mole {

/// Dou et al. 2023 (LoRAMoE), arXiv:2312.09979, with the loss localized_balance; Tian et al. 2024 (HydraLoRA),
/// arXiv:2404.19245, whose experts share one down-projection.
struct LoramoeOptions {
  Index in = 0;
  Index out = 0;
  Index experts = 6;
  Index rank = 4;
  double alpha = 32;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;     ///< on the adapters' input; the router sees x whole
  bool shared_down = false;  ///< true: HydraLoRA
};

template <class Base, class Execution = DefaultExecution>
using Loramoe = MixtureLinear<LinearRouter<typename Base::Scalar>, Gate<Softmax, All, Raw>,
                              LowRank<DenseFactors<typename Base::Scalar>>, Base, Execution>;

/// y = W x + b + sum_e p_e s B_e A_e x,  p = softmax(R x).  The base is any of yours: packed, quantized, a function.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
Loramoe<Base, Execution> loramoe(const LoramoeOptions& options, Base base, Generator& generator,
                                 Execution execution = {}) {
  using T = typename Base::Scalar;
  return {LinearRouter<T>({.in = options.in, .experts = options.experts}, generator), Gate{Softmax{}, All{}, Raw{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
Loramoe<DenseBase<View<const T>>, Execution> loramoe(const LoramoeOptions& options, ConstView<T> weight,
                                                     Generator& generator, ConstView<T> bias = {},
                                                     Execution execution = {}) {
  return loramoe(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
