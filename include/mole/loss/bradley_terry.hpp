// SPDX-License-Identifier: MIT
// bradley_terry(): teaches rewards to agree with a ranking.
#pragma once

#include "mole/core/error.hpp"
#include "mole/loss/coefficient.hpp"
#include "mole/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of bradley_terry().
struct BradleyTerryOptions {
  double coefficient = 1;
  std::span<const int> groups = {};  ///< [N], only answers of one group are compared. Empty: all with all
};

/// coefficient * mean over pairs (w, l) of different rank of   -log sigmoid(reward_w - reward_l)
///
///   rewards [N], ranks [N]: of a pair, w is the answer of the lower rank, the better one
///   d_rewards [N], accumulated:   d_w -= sigmoid(reward_l - reward_w) coefficient / pairs, d_l += the same
///
/// Answers of equal rank are not compared; 0 when there is no pair. An empty d_rewards is not wanted.
/// Throws Error(shape) if sizes disagree, Error(option) for a coefficient beyond float (in_float_range).  O(N^2), no
/// allocation.
/// Source: Bradley and Terry 1952; Quan 2024 (DMoERM), arXiv:2403.01197; quanshr/DMoERM,
/// innermoe/train_module.py, whose evaluation ranks the other way round.
template <class T>
double bradley_terry(std::span<const T> rewards, std::span<const int> ranks, std::span<T> d_rewards,
                     const BradleyTerryOptions& options = {}) {
  detail::require_coefficient("bradley_terry", options.coefficient);
  const Index size = Index(rewards.size());
  require_equal(ErrorCode::shape, "bradley_terry: ranks", size, Index(ranks.size()));
  if (!d_rewards.empty()) require_equal(ErrorCode::shape, "bradley_terry: gradients", size, Index(d_rewards.size()));
  if (!options.groups.empty())
    require_equal(ErrorCode::shape, "bradley_terry: groups", size, Index(options.groups.size()));
  const auto for_each_pair = [&](auto&& f) {
    for (std::size_t w = 0; w < rewards.size(); ++w)
      for (std::size_t l = 0; l < rewards.size(); ++l)
        if (ranks[w] < ranks[l] && (options.groups.empty() || options.groups[w] == options.groups[l])) f(w, l);
  };
  double pairs = 0, sum = 0;
  for_each_pair([&](std::size_t, std::size_t) { ++pairs; });
  for_each_pair([&](std::size_t w, std::size_t l) {
    const double lead = double(rewards[w]) - double(rewards[l]), small = std::exp(-std::abs(lead));
    sum += std::max(-lead, 0.0) + std::log1p(small);
    if (d_rewards.empty()) return;
    const T d = T(options.coefficient / pairs * (lead > 0 ? small : 1) / (1 + small));
    d_rewards[w] -= d;
    d_rewards[l] += d;
  });
  return pairs > 0 ? options.coefficient * sum / pairs : 0;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
