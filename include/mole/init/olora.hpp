// SPDX-License-Identifier: MIT
// olora_init(): the first columns of the weight's QR decomposition become the adapter.
#pragma once

#include "mole/core/qr.hpp"
#include "mole/init/lora_experts.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// With weight = Q R, and r ranks of scale s:   B = Q's first r columns,   A = R's first r rows,   residual = weight -
/// s B A. Nothing is divided by s, which therefore scales what is taken from the weight, as published.
///
///   weight, residual [O x I]; they may be the same memory, and an empty residual is not wanted
///
/// A base of the residual, with this adapter, computes what a base of the weight does, up to rounding. Ranks beyond
/// min(O, I) become 0. Throws Error(shape) for other sizes, Error(option) for numbers that are not finite; then nothing
/// has changed. O(O I min(O, I)).
/// Source: Buyukakyuz 2024 (OLoRA), arXiv:2406.01775; huggingface/peft, tuners/lora/layer.py, olora_init.
template <LoraExperts Experts>
void olora_init(Experts& experts, View<const typename Experts::Scalar> weight, View<typename Experts::Scalar> residual,
                Index expert = 0) {
  detail::require_fits("olora_init", experts, expert, weight, residual);
  const auto [q, r] = qr(detail::converted<double>(weight));
  const Matrix<double> rows_of_r = detail::transposed(r);
  for (Index j = 0; j < experts.blocks().size(expert); ++j)
    if (j < q.cols())
      detail::set_rank(experts, expert, j, rows_of_r, j, 1, q, j, 1);
    else
      detail::set_rank_to_zero(experts, expert, j);
  detail::write_residual(experts, expert, expert + 1, 1, weight, residual);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
