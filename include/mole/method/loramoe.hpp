// SPDX-License-Identifier: MIT
// loramoe(): LoRAMoE and HydraLoRA, all experts for every token, mixed by a softmax.
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
  Index experts = 6;
  Index rank = 4;
  double alpha = 32;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;     ///< on the adapters' input; the router sees x without dropout
  bool shared_down = false;  ///< true: HydraLoRA
};

/// y = W x + b + sum_e p_e s B_e A_e x,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto loramoe(const LoramoeOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return MixtureLinear{
      LinearRouter<T>({.in = base.in(), .experts = options.experts}, generator), Gate{Softmax{}, All{}, Raw{}},
      LowRank<DenseFactors<T>>(dense_factors_for(options, base), generator), std::move(base), std::move(execution)};
}

}  // namespace mole
