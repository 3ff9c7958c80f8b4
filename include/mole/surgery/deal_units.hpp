// SPDX-License-Identifier: MIT
// deal_units(): the hidden units of a dense feed-forward block, dealt out to experts by their importance.
#pragma once

#include "mole/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Among how many experts.
struct DealUnitsOptions {
  Index experts = 0;
  Index shared = 0;  ///< units of the expert that all tokens have: the most important ones
};

/// Units of a dense block, by expert.
struct DealtUnits {
  std::vector<std::vector<int>> experts;  ///< in the order in which they were dealt
  std::vector<int> shared;
};

/// Deals the units, most important first, in rounds of one for each expert, every second round backwards, so that each
/// expert has one of every importance: 8 units of falling importance make {0, 7}, {1, 6}, {2, 5}, {3, 4}.
///
///   importance [H] of the block's hidden units   ->   H = shared + experts x units
///
/// An expert of some units has their rows of the maps gate and up, with the biases of these, and their columns of down.
/// All experts together, each with a gate of 1, are the dense block: FeedForwardExperts under Gate{Identity{}, TopK{E},
/// Raw{.offset = 1}} and a router of zeros. Ties of importance go to the lower unit.
///
/// Throws Error(option) for less than 1 expert, for a number of units that the experts do not divide, and for an
/// importance that is not finite.  O(H log H).  Offline.
/// Source: He et al. 2025, arXiv:2512.02351; released as Shwai-He/SparseUnifiedModel, where shared = floor(H s / (s +
/// E)) for the units of s experts.
inline DealtUnits deal_units(std::span<const double> importance, const DealUnitsOptions& options) {
  const Index units = Index(importance.size()), experts = options.experts;
  require(experts >= 1, ErrorCode::option, "deal_units: expected at least 1 expert, found ", experts);
  require(options.shared >= 0 && options.shared <= units && (units - options.shared) % experts == 0, ErrorCode::option,
          "deal_units: expected a multiple of ", experts, " units besides ", options.shared, " shared ones, found ",
          units, " units in all");
  for (const double value : importance)
    require(std::isfinite(value), ErrorCode::option, "deal_units: expected finite importances, found ", value);
  std::vector<int> order(importance.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return importance[std::size_t(a)] > importance[std::size_t(b)]; });
  DealtUnits dealt{std::vector<std::vector<int>>(std::size_t(experts)),
                   std::vector<int>(order.begin(), order.begin() + options.shared)};
  for (Index i = 0; i < units - options.shared; ++i) {
    const Index round = i / experts, place = i % experts;
    dealt.experts[std::size_t(round % 2 == 0 ? place : experts - 1 - place)].push_back(
        order[std::size_t(options.shared + i)]);
  }
  return dealt;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
