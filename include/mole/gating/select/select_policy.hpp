// SPDX-License-Identifier: MIT
// SelectPolicy: the contract of selections: which experts serve a token?
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with, for one token,
///     max_chosen(experts)               the most experts that select() can choose
///     select(scores, experts, chosen)   writes their indices, best first, and returns how many
///   scores [E + extra], chosen [max_chosen(E)]
/// Order is (score descending, index ascending); NaN sorts last. A selection may tell when it chooses every expert, so
/// that a layer with it can be merged:
///     takes_all(experts)                does every token get all of so many experts, whatever its scores?
template <class S, class T>
concept SelectPolicy = std::copyable<S> &&
    requires(const S& select, std::span<const T> scores, Index experts, std::span<int> chosen) {
  { select.max_chosen(experts) } -> std::convertible_to<Index>;
  { select.select(scores, experts, chosen) } -> std::convertible_to<Index>;
};

/// A selection that also works on several tokens at once, one in each lane of a vector V:
///     select(scores, experts, chosen)   writes indices and returns counts, both as numbers of V
/// Used if E <= 512, max_chosen(experts) <= kernel::LargestInLanes::most and no score is NaN. It must choose the same
/// experts as the scalar form.
template <class S, class V>
concept LaneSelectPolicy = requires(const S& select, std::span<const V> scores, Index experts, std::span<V> chosen) {
  { select.select(scores, experts, chosen) } -> std::same_as<V>;
};

/// The order of every selection: is expert i with score a chosen before expert j with score b?
template <class T>
bool chosen_before(T a, int i, T b, int j) {
  const bool nan_a = std::isnan(a), nan_b = std::isnan(b);
  if (nan_a || nan_b) return nan_a == nan_b ? i < j : nan_b;
  return a > b || (a == b && i < j);
}

/// Writes the experts of the largest key(e), as many as `chosen` has room for, in the order of selections.
/// O(E K) at worst, for keys in ascending order; no memory beyond `chosen`.
template <class Key>
void choose_best_by(Key key, Index experts, std::span<int> chosen) {
  const auto before = [&](int i, int j) { return chosen_before(key(i), i, key(j), j); };
  // Sorted insertion: a heap took 1.4 to 2.4 times as long for K up to 64, and was no faster for K = 512 of 1024.
  const auto insert = [&](int e, auto place) {
    if (place - chosen.begin() > 64) {
      const auto from = std::upper_bound(chosen.begin(), place, e, before);
      std::move_backward(from, place, place + 1);
      place = from;
    }
    for (; place != chosen.begin() && before(e, place[-1]); --place) *place = place[-1];
    *place = e;
  };
  const int room = int(chosen.size());
  for (int e = 0; e < room; ++e) insert(e, chosen.begin() + e);
  for (int e = room; room > 0 && e < experts; ++e) {
    if (key(e) <= key(chosen.back())) continue;  // mostly true; never for NaN
    if (before(e, chosen.back())) insert(e, chosen.end() - 1);
  }
}

/// Writes the best of the first `experts` experts by their scores.
template <class T>
void choose_best(std::span<const T> scores, Index experts, std::span<int> chosen) {
  choose_best_by([&](int e) { return scores[std::size_t(e)]; }, experts, chosen);
}

/// Writes all of the first `experts` experts whose score is `good`, in the order of selections, and returns how many.
template <class T, class Good>
Index choose_those(std::span<const T> scores, Index experts, std::span<int> chosen, Good good) {
  Index kept = 0;
  for (int e = 0; e < experts; ++e)
    if (good(scores[std::size_t(e)])) chosen[std::size_t(kept++)] = e;
  std::sort(chosen.begin(), chosen.begin() + kept,
            [&](int i, int j) { return chosen_before(scores[std::size_t(i)], i, scores[std::size_t(j)], j); });
  return kept;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
