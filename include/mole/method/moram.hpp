// SPDX-License-Identifier: MIT
// moram(): MoRAM, self-routing rank-1 atoms, some more for each task.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/growing_bank.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/l2_normalized.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/softmax_over_chosen.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/latent_router.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Lu et al. 2025 (MoRA, later MoRAM), arXiv:2506.21035; released as Artificer-AI-Lab/MoRAM, whose XTAIL code this is.
///
/// It has no auxiliary loss. The paper's "rank pruning" is min_score, its "activation budget" k: no atom is ever
/// removed. The defaults here are those of the release's runner; its program has temperature 0.05 and min_score 0.5.
/// TRACE takes k = 8 of tasks of 8 atoms, temperature 0.03, eps 1e-8, and multiplies the newest B alone by alpha / r,
/// so that atoms change their scale when the next task begins; here a task keeps the scale that it is appended with.
struct MoramOptions {
  std::vector<int> ranks = {16};  ///< atoms of each task so far, oldest first
  Index k = 16;                   ///< atoms per token; 1 counts as 2, as in the release
  double temperature = 0.01;
  double min_score = 0.2;  ///< in inference
  double dropout = 0;      ///< on the adapter's input, by which the atoms are chosen, too
  double eps = 1e-12;
};

/// y = W x + b + sum over the k largest z_i of w_i z_i b_i,  z = A x,  w = softmax(z / ||z|| / temperature) over them.
/// Throws Error(option) for fewer than 2 or k atoms.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto moram(const MoramOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return MixtureLinear{LatentRouter<T>(std::accumulate(options.ranks.begin(), options.ranks.end(), Index(0))),
                       Gate{L2Normalized{.eps = options.eps}, TopK{.k = std::max<Index>(options.k, 2)},
                            SoftmaxOverChosen{.temperature = options.temperature, .min_score = options.min_score}},
                       LowRank<GrowingBank<T>>({.in = base.in(),
                                                .out = base.out(),
                                                .ranks = options.ranks,
                                                .dropout = {.rate = options.dropout, .stream = 1}},
                                               generator),
                       std::move(base), std::move(execution)};
}

/// Begins the next task: `ranks` new atoms with B = 0, all others frozen. Outputs change at once, as the new atoms take
/// part in the norm and in the selection. Needs new workspaces, new gradients and a new optimizer.
template <class Layer, class Generator>
void next_task(Layer& layer, Index ranks, Generator& generator, double scale = 1) {
  layer.experts().append(ranks, generator, scale);
  layer.router().append(ranks);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
