// SPDX-License-Identifier: MIT
// LD-MoLE: sparse mixtures whose sparsity each token learns.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/learned_sparsegen.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/dense_factors_for.hpp"
#include "mole/router/joined_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/mlp_router.hpp"

namespace mole {

/// Zhuang et al. 2025 (LD-MoLE), arXiv:2509.25684; released as eshentw/LD-MoLE, where all layers of one width share the
/// network of lambda, and where the router sees x as the adapters do, after dropout. Both are the caller's here: a
/// router of one's own, and dropout left at 0.
/// Its losses: load_balance over the weights, router_z, and a target for the number of experts.
struct LdMoleOptions {
  Index in = 0;
  Index out = 0;
  Index experts = 8;
  Index rank = 8;
  Index hidden = 64;  ///< of the network of lambda
  double epsilon = 0.01;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x whole
};

template <class Base, class Execution = DefaultExecution>
using LdMole = MixtureLinear<JoinedRouter<LinearRouter<typename Base::Scalar>, MlpRouter<typename Base::Scalar>>,
                             Gate<LearnedSparsegen, Threshold, Raw>, LowRank<DenseFactors<typename Base::Scalar>>, Base,
                             Execution>;

/// y = W x + b + sum over g_e > 0 of g_e s B_e A_e x,  g = sparsegen(R x, lambda),
///     lambda = log(sigmoid(mlp(x))) + 1 - epsilon.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
LdMole<Base, Execution> ld_mole(const LdMoleOptions& options, Base base, Generator& generator,
                                Execution execution = {}) {
  using T = typename Base::Scalar;
  return {JoinedRouter(LinearRouter<T>({.in = options.in, .experts = options.experts}, generator),
                       MlpRouter<T>({.in = options.in, .hidden = options.hidden, .experts = 1}, generator)),
          Gate{LearnedSparsegen{options.epsilon}, Threshold{.threshold = 0, .strict = true}, Raw{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
LdMole<DenseBase<View<const T>>, Execution> ld_mole(const LdMoleOptions& options, ConstView<T> weight,
                                                    Generator& generator, ConstView<T> bias = {},
                                                    Execution execution = {}) {
  return ld_mole(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
