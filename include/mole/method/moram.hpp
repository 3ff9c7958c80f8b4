// SPDX-License-Identifier: MIT
// MoRAM: rank-1 atoms that choose themselves, some more for each task.
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

namespace mole {

/// Lu et al. 2025 (MoRA, later MoRAM), arXiv:2506.21035; released as Artificer-AI-Lab/MoRAM, whose XTAIL code this is.
///
/// Its loss is the task's alone. The paper's "rank pruning" is min_score, its "activation budget" k: no atom is ever
/// removed. The release's program has other defaults than its runner, which these are: temperature 0.05, min_score
/// 0.5. TRACE takes k = 8 of tasks of 8 atoms, temperature 0.03, eps 1e-8, and multiplies the newest B alone by alpha /
/// r, so that atoms change their scale when the next task begins; here a task keeps the scale that it is appended with.
struct MoramOptions {
  Index in = 0;
  Index out = 0;
  std::vector<int> ranks = {16};  ///< atoms of each task so far, oldest first
  Index k = 16;                   ///< atoms a token; 1 counts as 2, as in the release
  double temperature = 0.01;
  double min_score = 0.2;  ///< outside of training
  double dropout = 0;        ///< on the adapter's input, which the atoms are chosen by, too
  double eps = 1e-12;
};

template <class Base, class Execution = DefaultExecution>
using Moram = MixtureLinear<LatentRouter<typename Base::Scalar>, Gate<L2Normalized, TopK, SoftmaxOverChosen>,
                            LowRank<GrowingBank<typename Base::Scalar>>, Base, Execution>;

/// y = W x + b + sum over the k largest z_i of w_i z_i b_i,  z = A x,  w = softmax(z / ||z|| / temperature) over them.
/// The base is any of yours: packed, quantized, a function. Throws Error(option) for fewer than 2 or k atoms.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
Moram<Base, Execution> moram(const MoramOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return {LatentRouter<T>(std::accumulate(options.ranks.begin(), options.ranks.end(), Index(0))),
          Gate{L2Normalized{.eps = options.eps}, TopK{.k = std::max<Index>(options.k, 2)},
               SoftmaxOverChosen{.temperature = options.temperature, .min_score = options.min_score}},
          LowRank<GrowingBank<T>>({.in = options.in,
                                   .out = options.out,
                                   .ranks = options.ranks,
                                   .dropout = {.rate = options.dropout, .stream = 1}},
                                  generator),
          std::move(base), std::move(execution)};
}

/// The same on a plain weight [O x I] that is borrowed, and so is bias [1 x O], which may be empty.
template <class T, class Generator, class Execution = DefaultExecution>
Moram<DenseBase<View<const T>>, Execution> moram(const MoramOptions& options, ConstView<T> weight, Generator& generator,
                                                 ConstView<T> bias = {}, Execution execution = {}) {
  return moram(options, DenseBase(weight, bias), generator, std::move(execution));
}

/// The next task: `ranks` new atoms with B = 0, all others frozen. Outputs change at once, as the new atoms have their
/// part in the norm and in the choice. Needs new workspaces, new gradients and a new optimizer.
template <class Base, class Execution, class Generator>
void next_task(Moram<Base, Execution>& layer, Index ranks, Generator& generator, double scale = 1) {
  layer.experts().append(ranks, generator, scale);
  layer.router().append(ranks);
}

}  // namespace mole
