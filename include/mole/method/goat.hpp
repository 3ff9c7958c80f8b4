// SPDX-License-Identifier: MIT
// goat(): GOAT, the k best of E LoRA experts, which start from singular directions of the weight.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/init/goat.hpp"
#include "mole/method/lora_mixture.hpp"

#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The scale s of GOAT's experts, of r = total_rank / experts ranks each.
enum class GoatScale {
  alpha_over_rank,       ///< alpha / r
  alpha_over_sqrt_rank,  ///< alpha / sqrt(r)
  as_full_training,      ///< sqrt(3 eta I / r), from the paper's comparison with training all of W
  two,                   ///< 2, the release's for directions as in PiSSA
};

/// Fan et al. 2025 (GOAT), arXiv:2502.16894; released as Facico/GOAT-PEFT. The layer is MoLA's; what is new is where it
/// starts: goat_init(), and the scale. Its loss: load_balance, BalanceNorm::k_at_uniform.
struct GoatOptions {
  Index experts = 8;
  Index total_rank = 32;  ///< of all experts together
  Index k = 2;
  GoatScale scale = GoatScale::as_full_training;
  double alpha = 16;   ///< of the first two scales
  double eta = 1;      ///< of as_full_training: the learning rate of full training over the adapter's
  double dropout = 0;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W' x + b + sum over the k largest p_e of p_e / (their sum) s B_e A_e x,  p = softmax(R x). W' is what
/// goat_init() leaves of the weight, in memory from which the base computes:
///
///     auto layer = mole::goat({}, mole::DenseBase{residual}, rng);
///     mole::goat_init(layer.experts(), weight, residual.view());
///
/// Throws Error(option) unless total_rank is a multiple of the experts.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto goat(const GoatOptions& options, Base base, Generator& generator, Execution execution = {}) {
  require(options.experts >= 1 && options.total_rank >= 1 && options.total_rank % options.experts == 0,
          ErrorCode::option, "goat: expected a total_rank that is a multiple of the experts, found ",
          options.total_rank, " ranks of ", options.experts, " experts");
  struct {
    Index experts, rank;
    double alpha;
    Scaling scaling;
    double dropout;
  } mixture{options.experts, options.total_rank / options.experts, options.alpha, Scaling::fixed, options.dropout};
  switch (options.scale) {
    case GoatScale::alpha_over_rank:
      mixture.scaling = Scaling::alpha_over_rank;
      break;
    case GoatScale::alpha_over_sqrt_rank:
      mixture.scaling = Scaling::alpha_over_sqrt_rank;
      break;
    case GoatScale::as_full_training:
      mixture.alpha = std::sqrt(3 * options.eta * double(base.in()) / double(mixture.rank));
      break;
    case GoatScale::two:
      mixture.alpha = 2;
  }
  return lora_mixture(mixture, Gate{Softmax{}, TopK{.k = options.k}, Renormalized{}}, std::move(base), generator,
                      std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
