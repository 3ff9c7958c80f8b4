// SPDX-License-Identifier: MIT
// fold_gate(): makes a trained rank gate part of B.
#pragma once

#include "mole/factors/factor_policy.hpp"

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Experts without a gate, LowRank<DenseFactors>, that compute the same as `experts`, LowRank<GatedRanks>: B = diag(g)
/// B.
///
/// Error: the rounding of g b; outputs are otherwise unchanged. For a plain LoRA of the ranks that remain:
///     fold_gate(prune_zero_ranks(experts))
/// Copies A and B.  Source: Ding et al. 2023 (SoRA), arXiv:2311.11696.
template <class Experts>
auto fold_gate(const Experts& experts) {
  using Folded = typename std::remove_cvref_t<decltype(experts.factors())>::Ungated;
  const auto& from = experts.parameters();
  typename Folded::Parameters to{from.lora_A, from.lora_B};
  for (Index j = 0; j < to.lora_B.rows(); ++j)
    for (auto& b : to.lora_B.view().row(j)) b *= from.gate(0, j);
  return experts.with(Folded(experts.blocks(), std::move(to)));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
