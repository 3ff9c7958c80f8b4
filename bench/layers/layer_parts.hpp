// SPDX-License-Identifier: MIT
// Layer parts: the policies of each layer case, and their cost.
#pragma once

#include "bench/layers/frozen_layer.hpp"
#include "bench/layers/layer_case.hpp"
#include "bench/layers/layer_cost.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/select/top_p.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/latent_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/no_router.hpp"

#include <algorithm>
#include <cmath>

namespace bench {

/// What layers of dense factors share. Derived parts offer layer(one, d, rng, execution).
struct DenseParts {
  using Experts = mole::LowRank<mole::DenseFactors<float>>;

  static Experts experts(const LayerCase& one, Index d, mole::Rng& rng) {
    return Experts({.in = d, .out = d, .experts = one.experts, .rank = one.rank, .alpha = scale * double(one.rank)},
                   rng);
  }

  /// Logits of variance 1 for tokens from U(-1, 1), so that a softmax prefers somebody.
  static mole::LinearRouter<float> router(const LayerCase& one, Index d, mole::Rng& rng) {
    mole::LinearRouter<float> router({.in = d, .experts = one.experts}, rng);
    mole::fill_uniform(router.parameters().weight.view(), 3 / std::sqrt(double(d)), rng);
    return router;
  }

  static LayerCost cost(const LayerCase& one, Index d, const mole::Routing<float>& routing) {
    const bool scores = one.routed == Routed::top_k || one.routed == Routed::top_p;
    const double router = scores ? double(one.experts * d) : 0, expert = 2.0 * double(one.rank * d);
    return {routing.tokens(), d, router + chosen(routing) * expert, 0, router + met(one, routing) * expert};
  }

  /// Experts that a token has on average.
  static double chosen(const mole::Routing<float>& routing) {
    return double(routing.pairs()) / double(std::max<Index>(1, routing.tokens()));
  }

  /// Experts that have a token.
  static double met(const LayerCase& one, const mole::Routing<float>& routing) {
    Index met = 0;
    for (Index e = 0; e < one.experts; ++e) met += !routing.pairs_of(e).empty();
    return double(met);
  }
};

struct AlwaysParts : DenseParts {
  static auto layer(const LayerCase& one, Index d, mole::Rng& rng, auto execution) {
    return mole::MixtureLinear(mole::NoRouter<float>(1), mole::Gate{mole::Identity{}, mole::All{}, mole::Unit{}},
                               experts(one, d, rng), FrozenLayer::of(d).base, execution);
  }
};

struct TopKParts : DenseParts {
  static auto layer(const LayerCase& one, Index d, mole::Rng& rng, auto execution) {
    return mole::MixtureLinear(router(one, d, rng),
                               mole::Gate{mole::Softmax{}, mole::TopK{.k = one.chosen}, mole::Renormalized{}},
                               experts(one, d, rng), FrozenLayer::of(d).base, execution);
  }
};

struct ExternalParts : DenseParts {
  static auto layer(const LayerCase& one, Index d, mole::Rng& rng, auto execution) {
    return mole::ExpertLinear(experts(one, d, rng), FrozenLayer::of(d).base, execution);
  }
};

struct TopPParts : DenseParts {
  static auto layer(const LayerCase& one, Index d, mole::Rng& rng, auto execution) {
    return mole::MixtureLinear(router(one, d, rng), mole::Gate{mole::Softmax{}, mole::TopP{.p = top_p}, mole::Raw{}},
                               experts(one, d, rng), FrozenLayer::of(d).base, execution);
  }
};

struct FlyLoraParts {
  using Experts = mole::LowRank<mole::SparseProjection<float>>;

  static Index nonzeros(const LayerCase& one, Index d) { return d * one.chosen / one.experts; }

  static auto layer(const LayerCase& one, Index d, mole::Rng& rng, auto execution) {
    return mole::MixtureLinear(mole::LatentRouter<float>(one.experts),
                               mole::Gate{mole::Magnitude{}, mole::TopK{.k = one.chosen}, mole::Unit{}},
                               Experts({.in = d,
                                        .out = d,
                                        .experts = one.experts,
                                        .nonzeros = nonzeros(one, d),
                                        .alpha = scale,
                                        .scaling = mole::Scaling::fixed},
                                       rng),
                               FrozenLayer::of(d).base, execution);
  }

  /// Every token meets all of A: its numbers, and in memory also where they are.
  static LayerCost cost(const LayerCase& one, Index d, const mole::Routing<float>& routing) {
    const double a = double(one.experts * nonzeros(one, d)), row = double(one.rank * d);
    return {routing.tokens(), d, DenseParts::chosen(routing) * row, a, 2 * a + DenseParts::met(one, routing) * row};
  }
};

}  // namespace bench
