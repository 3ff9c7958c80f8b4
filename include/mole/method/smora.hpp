// SPDX-License-Identifier: MIT
// smora(): SMoRA, every rank of one LoRA as an expert.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/biased_sigmoid.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/repeated_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Zhao et al. 2025 (SMoRA, "Each Rank Could be an Expert"), arXiv:2501.15103; released as StyxXuan/smora ("srmole").
///
/// The gates of the k chosen ranks sum to k, and the scale is alpha / k, not alpha / rank. As in the release the
/// balancing bias acts on the gate, not only on the selection, and is moved after each training step by 1e-5 times the
/// sign of the missing load; Gate{Sigmoid, GroupedTopK, Renormalized} has it in the selection alone. Dropout gives the
/// router and A the same dropped x. rank_partition neighboring ranks share a row of the router; with a bias a selection
/// may split them, as in the release.
struct SmoraOptions {
  Index rank = 64;
  Index k = 8;
  Index rank_partition = 1;
  double alpha = 16;
  double dropout = 0;  ///< on the input of the adapter and of the router
};

namespace detail {
template <class T, class Generator>
RepeatedRouter<T> smora_router(const SmoraOptions& options, Index in, Generator& generator) {
  require(options.rank_partition >= 1 && options.rank % options.rank_partition == 0, ErrorCode::option,
          "smora: expected a rank_partition that divides the rank ", options.rank, ", found ", options.rank_partition);
  return {LinearRouter<T>({.in = in,
                           .experts = options.rank / options.rank_partition,
                           .dropout = {.rate = options.dropout, .stream = 1}},
                          generator),
          options.rank_partition};
}
}  // namespace detail

/// y = W x + b + alpha / k sum over the k largest q_i of k q_i / (their sum) b_i (a_i x),  q = sigmoid(R x) + bias.
/// Throws Error(option) unless rank_partition divides the rank and 1 <= k <= rank.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto smora(const SmoraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return MixtureLinear{detail::smora_router<T>(options, base.in(), generator),
                       Gate{BiasedSigmoid<T>(options.rank), TopK{.k = options.k}, Renormalized{double(options.k)}},
                       LowRank<DenseFactors<T>>({.in = base.in(),
                                                 .out = base.out(),
                                                 .experts = options.rank,
                                                 .rank = 1,
                                                 .alpha = options.alpha / double(options.k),
                                                 .scaling = Scaling::fixed,
                                                 .dropout = {.rate = options.dropout, .stream = 1}},
                                                generator),
                       std::move(base), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
