// SPDX-License-Identifier: MIT
// compressed_experts(): half of a token's experts run, the others rescale what those read.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/compressed_experts.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/linear_router.hpp"

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Gates of main and auxiliary experts: the probabilities as they are (OLMoE, norm_topk_prob off), or shares of all
/// that are chosen. In neither case do the main experts get what the auxiliary ones had. The first is the default of
/// the release.
enum class CompressedGates { raw, renormalized };

/// He et al. 2025 (Compressed Experts), arXiv:2503.00634, whose experts are the feed-forward blocks of a pretrained
/// mixture; here they are LoRA experts of one linear layer. Other experts are put into CompressedExperts alike:
/// MapExperts<DenseMaps> are the whole matrices of the paper. The paper trains everything, router and vectors included;
/// its balance loss, load_balance with a coefficient of 0.01, is off. In the paper, quality collapses when more than
/// half of a token's experts are compressed.
struct CompressedExpertsOptions {
  Index experts = 8;
  Index main = 2;       ///< experts that run
  Index auxiliary = 2;  ///< experts that rescale; the paper: as many as main
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;  ///< on the experts' rescaled input
};

/// y = W x + b + sum over the `main` largest p_e of p_e s B_e A_e (theta o x),  p = softmax(R x), theta the mean of the
/// vectors of the next `auxiliary`, weighted by their p. Throws Error(option) unless main >= 1 and all chosen exist.
template <CompressedGates gates = CompressedGates::raw, BasePolicy Base, class Generator,
          class Execution = DefaultExecution>
auto compressed_experts(const CompressedExpertsOptions& options, Base base, Generator& generator,
                        Execution execution = {}) {
  using T = typename Base::Scalar;
  using Weigh = std::conditional_t<gates == CompressedGates::raw, Raw, Renormalized>;
  require(options.auxiliary >= 0, ErrorCode::option,
          "compressed_experts: expected at least 0 auxiliary experts, found ", options.auxiliary);
  LinearRouter<T> router({.in = base.in(), .experts = options.experts}, generator);
  LowRank<DenseFactors<T>> experts({.in = base.in(),
                                    .out = base.out(),
                                    .experts = options.experts,
                                    .rank = options.rank,
                                    .alpha = options.alpha,
                                    .dropout = {.rate = options.dropout, .stream = 1}},
                                   generator);
  return MixtureLinear{std::move(router), Gate{Softmax{}, TopK{.k = options.main + options.auxiliary}, Weigh{}},
                       CompressedExperts(std::move(experts), options.main), std::move(base), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
