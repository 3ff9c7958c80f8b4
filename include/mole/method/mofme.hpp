// SPDX-License-Identifier: MIT
// mofme(): MoFME, experts that scale and shift the features of one shared block.
#pragma once

#include "mole/base/no_base.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/layer/experts_behind_base.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/maps/feature_modulation.hpp"
#include "mole/maps/off_by_one_modulation.hpp"
#include "mole/router/linear_router.hpp"

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The gates of the k best: shares of what is chosen (the release: top-k, then softmax), or the probabilities as they
/// are (the paper, by a summary of it: softmax, then top-k). The release is the default: its gates sum to 1, so that
/// fresh modulations leave the features as they are.
enum class MofmeGates { renormalized, raw };

/// Which modulation a gate weighs: its own, or what the released loop takes, which counts wrong (OffByOneModulation).
/// Its own is the default: the other never trains the last expert, and leaves the first out of the modulation.
enum class MofmeLoop { repaired, as_published };

/// Zhang et al. 2024 (MoFME), arXiv:2312.16610; released as RoyZry98/MoFME-Pytorch.
///
/// The released block is y = x + adaptor(v): v is what this layer makes of x, over a base that is the gated block
/// GELU(W1 n + c1) o (W2 n + c2) of n = LayerNorm(x); the router reads x, before the norm. Any base will do, a linear
/// map or a user's own block. There, all experts tied with the k-th are kept; here the lower index is. There is no
/// auxiliary loss. In training the paper calibrates the gates: mofme_uar().
struct MofmeOptions {
  Index experts = 8;
  Index k = 2;  ///< 0: all, as in the release
  ModulationForm form = ModulationForm::full;
  Index rank = 8;         ///< of ModulationForm::low_rank
  bool residual = false;  ///< v = u + sum of w_e f_e(u) with modulations that start at 0, so that a fresh layer, and
                          ///< tokens that are not routed, get u, bit for bit; not with `random`, nor with
                          ///< MofmeLoop::as_published, whose f_0 is a GELU. As published there is the sum alone
  bool random = false;    ///< modulations start at random, as in the release, and not at the identity
};

namespace detail {
/// The experts of MoFME behind `base`.
template <MofmeLoop loop, class Base, class Generator>
auto modulations_behind(const MofmeOptions& options, Base base, Generator& generator) {
  using T = typename Base::Scalar;
  using Maps = std::conditional_t<loop == MofmeLoop::repaired, FeatureModulation<T>, OffByOneModulation<T>>;
  MapExperts<Maps> experts({.features = base.out(),
                            .experts = options.experts,
                            .form = options.form,
                            .rank = options.rank,
                            .start = options.residual ? 0.0 : 1.0,
                            .random = options.random},
                           generator);
  return ExpertsBehindBase(std::move(base), std::move(experts), options.residual);
}
}  // namespace detail

/// v = sum over the k largest p_e of w_e ((P_e u + p_e) o u + Q_e u + q_e),  u = base(x),  p = softmax(R x + b).
template <MofmeGates gates = MofmeGates::renormalized, MofmeLoop loop = MofmeLoop::repaired, BasePolicy Base,
          class Generator, class Execution = DefaultExecution>
auto mofme(const MofmeOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  using Weigh = std::conditional_t<gates == MofmeGates::renormalized, Renormalized, Raw>;
  const Index in = base.in(), out = base.out();
  LinearRouter<T> router({.in = in, .experts = options.experts, .bias = true}, generator);
  const Gate gate{Softmax{}, TopK{.k = options.k == 0 ? options.experts : options.k}, Weigh{}};
  return MixtureLinear{std::move(router), gate, detail::modulations_behind<loop>(options, std::move(base), generator),
                       NoBase<T>(in, out), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
