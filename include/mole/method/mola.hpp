// SPDX-License-Identifier: MIT
// MoLA: the k best of E LoRA experts for each token.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/dense_factors_for.hpp"
#include "mole/router/linear_router.hpp"

namespace mole {

/// Gao et al. 2024 (MoLA), arXiv:2402.08562; released as GCYZSL/MoLA. The same composition, with other balance losses,
/// is MoLE-top-k (AdaMoLE's baseline), and, without a base, Mixtral's and Uni-MoE's routing.
/// Its loss: load_balance, BalanceNorm::one_at_uniform, coefficient 1e-3, off in the release.
struct MolaOptions {
  Index in = 0;
  Index out = 0;
  Index experts = 8;
  Index rank = 8;
  Index k = 2;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x whole
};

template <class Base, class Execution = DefaultExecution>
using Mola = MixtureLinear<LinearRouter<typename Base::Scalar>, Gate<Softmax, TopK, Renormalized>,
                           LowRank<DenseFactors<typename Base::Scalar>>, Base, Execution>;

/// y = W x + b + sum over the k largest p_e of p_e / (their sum) s B_e A_e x,  p = softmax(R x).  The base is any of
/// yours: packed, quantized, a function.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
Mola<Base, Execution> mola(const MolaOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return {LinearRouter<T>({.in = options.in, .experts = options.experts}, generator),
          Gate{Softmax{}, TopK{.k = options.k}, Renormalized{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
Mola<DenseBase<View<const T>>, Execution> mola(const MolaOptions& options, ConstView<T> weight, Generator& generator,
                                               ConstView<T> bias = {}, Execution execution = {}) {
  return mola(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
