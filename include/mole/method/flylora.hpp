// SPDX-License-Identifier: MIT
// flylora(): FlyLoRA, a frozen sparse projection that also decides which ranks a token uses.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/latent_router.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What ranks are selected by: the magnitude of a_i x + bias_i, or its signed value.
enum class FlySelect { magnitude, signed_value };

/// Zou et al. 2025 (FlyLoRA), arXiv:2510.08396; released as gfyddha/FlyLoRA.
///
/// Selection is by magnitude in the paper's text, in eq. 8 and in the release's flylora.py, by signed value in eq. 10
/// and in the peft fork of its experiments, which also passes no gradient to x through A: see `select` and `detached`.
/// The caller moves the balancing bias, layer.router().bias(), in training only: d_i += u sign(mean count - count_i),
/// u = 1e-3 in the scripts. flylora.py compares a frequency with a count there, and the fork moves the bias in
/// evaluation, too.
struct FlyloraOptions {
  Index rank = 32;     ///< all ranks, each an expert
  Index k = 8;         ///< ranks per token
  Index nonzeros = 0;  ///< per row of A; 0: in k / rank, rounded down, at least 1. The fork: in / (rank / k)
  double alpha = 64;   ///< over all ranks, not over k
  double dropout = 0;  ///< on the adapter's input
  FlySelect select = FlySelect::magnitude;
  bool detached = false;  ///< x gets no gradient through A
};

/// y = W x + b + (alpha / rank) sum of b_i (a_i x) over the k largest |a_i x + bias_i|.
/// Throws Error(option) unless 1 <= k <= rank.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto flylora(const FlyloraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  const Index share = std::min(base.in(), base.in() * options.k / std::max<Index>(1, options.rank));
  return MixtureLinear{
      LatentRouter<T>(options.rank),
      Gate{Magnitude{.keep_sign = options.select == FlySelect::signed_value}, TopK{.k = options.k}, Unit{}},
      LowRank<SparseProjection<T>>({.in = base.in(),
                                    .out = base.out(),
                                    .experts = options.rank,
                                    .nonzeros = options.nonzeros != 0 ? options.nonzeros : std::max<Index>(1, share),
                                    .alpha = options.alpha / double(options.rank),
                                    .scaling = Scaling::fixed,
                                    .dropout = {.rate = options.dropout, .stream = 1},
                                    .detached = options.detached},
                                   generator),
      std::move(base), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
