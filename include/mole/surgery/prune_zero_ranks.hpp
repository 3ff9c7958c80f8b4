// SPDX-License-Identifier: MIT
// prune_zero_ranks(): removes the ranks whose gate is exactly zero.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/factors/factor_policy.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The same experts, LowRank<GatedRanks>, without the ranks of gate 0; the other ranks keep their order, and every
/// expert its place and scale, even one without any ranks left.
///
/// Error: none. Outputs are those of `experts` up to the order of summation, as a rank of gate 0 adds nothing.
/// Throws Error(option) if several experts share one down-projection: others may read a row of A whose gate is 0 in
/// one.
/// Copies what stays.  Source: Ding et al. 2023 (SoRA), arXiv:2311.11696: the pruning before inference.
template <class Experts>
Experts prune_zero_ranks(const Experts& experts) {
  using Factors = std::remove_cvref_t<decltype(experts.factors())>;
  const RankBlocks& blocks = experts.blocks();
  require(!blocks.shared_down() || blocks.experts() <= 1, ErrorCode::option,
          "prune_zero_ranks: expected experts with a down-projection each, found a shared one");
  const auto& from = experts.parameters();

  std::vector<int> sizes;
  std::vector<Index> kept;
  for (Index e = 0; e < blocks.experts(); ++e) {
    const Index before = Index(kept.size());
    for (Index j = blocks.up(e); j < blocks.up(e) + blocks.size(e); ++j)
      if (from.gate(0, j) != 0) kept.push_back(j);
    sizes.push_back(int(Index(kept.size()) - before));
  }
  using T = typename Experts::Scalar;
  const Index ranks = Index(kept.size());
  typename Factors::Parameters to{Matrix<T>(ranks, experts.in()), Matrix<T>(ranks, experts.out()), Matrix<T>(1, ranks)};
  for (Index j = 0; j < ranks; ++j) {
    const Index row = kept[std::size_t(j)];
    std::copy_n(from.lora_A.view().row_data(row), experts.in(), to.lora_A.view().row_data(j));
    std::copy_n(from.lora_B.view().row_data(row), experts.out(), to.lora_B.view().row_data(j));
    to.gate(0, j) = from.gate(0, row);
  }
  return experts.with(Factors(RankBlocks::ragged(sizes), std::move(to), experts.factors().start()));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
