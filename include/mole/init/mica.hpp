// SPDX-License-Identifier: MIT
// mica_init(): B from the weakest output directions of the weight.
#pragma once

#include "mole/core/svd.hpp"
#include "mole/init/lora_experts.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// A = 0,   B = the left singular vectors of the r smallest singular values of the weight, of min(O, I): the layer's
/// output equals its base's. In training B stands still: leave it out of the optimizer.
///
///   weight [O x I]
///
/// Ranks beyond min(O, I) become 0. Throws Error(shape) for other sizes, Error(option) for numbers that are not finite;
/// then nothing has changed. Cost: svd().
/// Source: huggingface/peft, tuners/lora/layer.py, mica_init.
template <LoraExperts Experts>
void mica_init(Experts& experts, View<const typename Experts::Scalar> weight, Index expert = 0) {
  detail::require_fits("mica_init", experts, expert, weight, {});
  const Svd<double> all = svd(detail::converted<double>(weight));
  const Index ranks = experts.blocks().size(expert), unused = std::max<Index>(0, all.u.cols() - ranks);
  for (Index j = 0; j < ranks; ++j)
    if (unused + j < all.u.cols())
      detail::set_rank(experts, expert, j, all.v, 0, 0, all.u, unused + j, 1);
    else
      detail::set_rank_to_zero(experts, expert, j);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
