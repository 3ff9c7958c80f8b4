// SPDX-License-Identifier: MIT
// pissa_init(): the leading singular directions of the weight become the adapter.
#pragma once

#include "mole/init/leading_directions.hpp"
#include "mole/init/lora_experts.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which expert starts, and how its directions are found.
struct PissaOptions {
  Index expert = 0;
  std::optional<Index> power_iterations = {};  ///< of a random projection; unset: an exact decomposition
};

/// With weight = U diag(sigma) V^T, and r ranks of scale s:   B = U_r sqrt(sigma_r / s),   A = sqrt(sigma_r / s) V_r^T,
/// residual = weight - s B A.
///
///   weight, residual [O x I]; they may be the same memory, and an empty residual is not wanted
///
/// A base of the residual, with this adapter, computes what a base of the weight does, up to rounding. Ranks beyond
/// min(O, I) become 0. Throws Error(shape) for other sizes, Error(option) for a scale of 0 or less, or for numbers that
/// are not finite; then nothing has changed. Cost: leading_directions().
/// Source: Meng et al. 2024 (PiSSA), arXiv:2404.02948; huggingface/peft, tuners/lora/layer.py, pissa_init.
template <LoraExperts Experts>
void pissa_init(Experts& experts, View<const typename Experts::Scalar> weight, View<typename Experts::Scalar> residual,
                const PissaOptions& options = {}) {
  detail::require_fits("pissa_init", experts, options.expert, weight, residual);
  const double scale = detail::positive_scale("pissa_init", experts, options.expert);
  const Index ranks = experts.blocks().size(options.expert);
  if (ranks > 0) {
    const auto found = leading_directions(weight, {.count = ranks, .power_iterations = options.power_iterations});
    detail::set_directions(experts, options.expert, found, scale);
  }
  detail::write_residual(experts, options.expert, options.expert + 1, 1, weight, residual);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
