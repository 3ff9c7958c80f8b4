// SPDX-License-Identifier: MIT
// average_banks(): merges adapters of several tasks that share their A.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/surgery/weighted_bank.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// Throws unless bank t has the blocks of bank 0 and, bit for bit, its A.
template <class Experts>
void require_same_a(const Experts& first, const Experts& other, std::size_t t) {
  using T = typename Experts::Scalar;
  const std::string name = "average_banks: ", of_bank = " of bank " + std::to_string(t);
  const auto &blocks = first.blocks(), &others = other.blocks();
  require_equal(ErrorCode::shape, name + "experts" + of_bank, blocks.experts(), others.experts());
  for (Index e = 0; e < blocks.experts(); ++e)
    require_equal(ErrorCode::shape, name + "ranks of expert " + std::to_string(e) + of_bank, blocks.size(e),
                  others.size(e));
  require_equal(ErrorCode::shape, name + "rows of A" + of_bank, blocks.ranks_down(), others.ranks_down());
  const Matrix<T> a = first.tables().a, other_a = other.tables().a;
  for (Index j = 0; j < a.rows(); ++j)
    for (Index i = 0; i < a.cols(); ++i)
      require(std::memcmp(&a(j, i), &other_a(j, i), sizeof(T)) == 0, ErrorCode::option, name,
              "expected the A of bank 0 in all banks, bit for bit, found another one in bank ", t, ": ", other_a(j, i),
              " for ", a(j, i), " in row ", j, ", column ", i, "; banks of different A are for concatenate_banks");
}
}  // namespace detail

/// One bank, of the ranks of a single one, that adds the sum of all banks:   A = A_1,  B = sum_t w_t s_t B_t / scale
///
///   y = W x + (sum_t w_t s_t B_t) (A x), if every token has every expert; weights of 1/T make the mean
///
/// For LowRank<DenseFactors> and LowRank<SparseProjection>, if all tasks start from one seed and A is frozen. All
/// experts have the scale `scale`; there is no dropout. The release's script averages both A and B: this is the same
/// for banks of one A, and no meaningful update for others, so others are rejected.
///
/// Error: the rounding of the sum. Throws Error(option) for no bank, a weight or scale that is not finite, a scale of
/// 0, or banks whose A differ in a bit; Error(shape) for other inputs, outputs, experts or ranks.  Copies.
/// Source: gfyddha/FlyLoRA, merge_lora_adapters.py; Zou et al. 2025 (FlyLoRA), arXiv:2510.08396, eq. 12.
template <class Experts>
requires detail::AppendableBank<Experts> Experts average_banks(const std::vector<WeightedBank<Experts>>& banks,
                                                               double scale = 1) {
  using T = typename Experts::Scalar;
  detail::check_banks("average_banks", banks, scale);
  const Experts& first = *banks.front().experts;
  for (std::size_t t = 1; t < banks.size(); ++t) detail::require_same_a(first, *banks[t].experts, t);
  auto factors = first.factors();
  auto& b = factors.parameters().lora_B;
  b.set_zero();
  for (const WeightedBank<Experts>& bank : banks) detail::add_weighted_b(bank, scale, b.view());
  return Experts(std::move(factors), std::vector<T>(std::size_t(first.experts()), T(scale)));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
