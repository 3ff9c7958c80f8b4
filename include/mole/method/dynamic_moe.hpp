// SPDX-License-Identifier: MIT
// Dynamic MoE: as many LoRA experts as a token needs.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/dense_factors_for.hpp"
#include "mole/router/linear_router.hpp"

namespace mole {

/// Huang et al. 2024 (Dynamic_MoE, "Harder Tasks Need More Experts"), arXiv:2403.07652; released as
/// ZhenweiAn/Dynamic_MoE, whose experts are whole feed-forward networks. Paper and release differ where a sum meets p
/// exactly: the paper stops there (strict = false), the release goes on. Its "temperature", 1 there, is DividedSoftmax.
/// MixLoRA-dynamic (TUDB-Labs/MoE-PEFT) has the same gate with p = 0.8.
/// Its losses: load_balance with BalanceNorm::k_at_uniform, coefficient 1e-2, and router_entropy, 1e-4.
struct DynamicMoeOptions {
  Index in = 0;
  Index out = 0;
  Index experts = 16;
  Index rank = 8;
  double p = 0.4;
  bool strict = true;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x whole
};

template <class Base, class Execution = DefaultExecution>
using DynamicMoe = MixtureLinear<LinearRouter<typename Base::Scalar>, Gate<Softmax, TopP, Raw>,
                                 LowRank<DenseFactors<typename Base::Scalar>>, Base, Execution>;

/// y = W x + b + sum over the best p_e, until their sum passes `p`, of p_e s B_e A_e x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
DynamicMoe<Base, Execution> dynamic_moe(const DynamicMoeOptions& options, Base base, Generator& generator,
                                        Execution execution = {}) {
  using T = typename Base::Scalar;
  return {LinearRouter<T>({.in = options.in, .experts = options.experts}, generator),
          Gate{Softmax{}, TopP{.p = options.p, .strict = options.strict}, Raw{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
DynamicMoe<DenseBase<View<const T>>, Execution> dynamic_moe(const DynamicMoeOptions& options, ConstView<T> weight,
                                                            Generator& generator, ConstView<T> bias = {},
                                                            Execution execution = {}) {
  return dynamic_moe(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
