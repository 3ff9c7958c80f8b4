// SPDX-License-Identifier: MIT
// MoLE with a threshold: every LoRA expert that is probable enough.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/threshold.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/method/dense_factors_for.hpp"
#include "mole/router/linear_router.hpp"

namespace mole {

/// The baseline of AdaMoLE: Liu and Luo 2024, arXiv:2405.00361; released in zefang-liu/AdaMoLE. A token for which
/// nobody is probable enough keeps the base's output; with a threshold of 1 / E or less there is none. Its loss:
/// load_balance with BalanceNorm::k_at_uniform.
struct MoleThresholdOptions {
  Index in = 0;
  Index out = 0;
  Index experts = 8;
  Index rank = 8;
  double threshold = 0.125;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x whole
};

template <class Base, class Execution = DefaultExecution>
using MoleThreshold = MixtureLinear<LinearRouter<typename Base::Scalar>, Gate<Softmax, Threshold, Renormalized>,
                                    LowRank<DenseFactors<typename Base::Scalar>>, Base, Execution>;

/// y = W x + b + sum over p_e >= threshold of p_e / (their sum) s B_e A_e x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
MoleThreshold<Base, Execution> mole_threshold(const MoleThresholdOptions& options, Base base, Generator& generator,
                                              Execution execution = {}) {
  using T = typename Base::Scalar;
  return {LinearRouter<T>({.in = options.in, .experts = options.experts}, generator),
          Gate{Softmax{}, Threshold{.threshold = options.threshold}, Renormalized{}},
          LowRank<DenseFactors<T>>(dense_factors_for<T>(options), generator), std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
MoleThreshold<DenseBase<View<const T>>, Execution> mole_threshold(const MoleThresholdOptions& options,
                                                                  ConstView<T> weight, Generator& generator,
                                                                  ConstView<T> bias = {}, Execution execution = {}) {
  return mole_threshold(options, DenseBase(weight, bias), generator, std::move(execution));
}

}  // namespace mole
