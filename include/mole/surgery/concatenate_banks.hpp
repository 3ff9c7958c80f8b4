// SPDX-License-Identifier: MIT
// concatenate_banks(): merges adapters of several tasks, whatever their A.
#pragma once

#include "mole/surgery/weighted_bank.hpp"

#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One bank that adds the sum of all banks:   A = [A_1; A_2; ...],  B = [w_1 s_1 B_1; w_2 s_2 B_2; ...] / scale
///
///   y = W x + sum_t w_t s_t B_t (A_t x), if every token has every expert
///
/// For LowRank<DenseFactors> and LowRank<SparseProjection>. The experts of the first bank come first, then those of the
/// next, all with the scale `scale` and without dropout. A layer of them is made as any other: with a router and a
/// gating for the new number of experts, a k of the caller's choice, and the balancing biases in the same order. If the
/// gating selects, the experts of all tasks compete, and a token may be served by none of the experts of its own task.
///
/// Error: the rounding of w s b. Throws Error(option) for no bank, a weight or scale that is not finite, a scale of 0,
/// or an A that several experts share; Error(shape) for other inputs, outputs, or numbers of nonzeros.  Copies.
/// Source: Zou et al. 2025 (FlyLoRA), arXiv:2510.08396, eq. 12.
template <class Experts>
requires detail::AppendableBank<Experts> Experts concatenate_banks(const std::vector<WeightedBank<Experts>>& banks,
                                                                   double scale = 1) {
  using T = typename Experts::Scalar;
  detail::check_banks("concatenate_banks", banks, scale);
  auto factors = banks.front().experts->factors();
  for (std::size_t t = 1; t < banks.size(); ++t) factors.append(banks[t].experts->factors());
  auto& b = factors.parameters().lora_B;
  b.set_zero();
  Index row = 0;
  for (const WeightedBank<Experts>& bank : banks) {
    const Index ranks = bank.experts->blocks().ranks_up();
    detail::add_weighted_b(bank, scale, b.view().middle_rows(row, ranks));
    row += ranks;
  }
  const auto experts = std::size_t(factors.blocks().experts());
  return Experts(std::move(factors), std::vector<T>(experts, T(scale)));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
