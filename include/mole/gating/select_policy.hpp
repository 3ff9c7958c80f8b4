// SPDX-License-Identifier: MIT
// The contract of selections: which experts serve a token.
#pragma once

#include "mole/core/config.hpp"

#include <cmath>
#include <concepts>
#include <span>

namespace mole {

/// Satisfied by a copyable type with, for one token,
///     max_chosen(experts)               the most experts that select() can choose
///     select(scores, experts, chosen)   writes their indices, best first, and returns how many
///   scores [E + extra], chosen [max_chosen(E)]
/// Order is (score descending, index ascending); NaN sorts last.
template <class S, class T>
concept SelectPolicy = std::copyable<S> &&
    requires(const S& select, std::span<const T> scores, Index experts, std::span<int> chosen) {
  { select.max_chosen(experts) } -> std::convertible_to<Index>;
  { select.select(scores, experts, chosen) } -> std::convertible_to<Index>;
};

/// The order of every selection: is expert i with score a chosen before expert j with score b?
template <class T>
bool chosen_before(T a, int i, T b, int j) {
  const bool nan_a = std::isnan(a), nan_b = std::isnan(b);
  if (nan_a || nan_b) return nan_a == nan_b ? i < j : nan_b;
  return a > b || (a == b && i < j);
}

}  // namespace mole
