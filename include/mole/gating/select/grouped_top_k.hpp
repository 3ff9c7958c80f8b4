// SPDX-License-Identifier: MIT
// GroupedTopK: the selection of the k best experts of the best groups.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The k largest score_e + bias_e among the experts of the best groups.
///
///   scores [N x E], bias [E] or empty   ->   k experts per token
///
/// A group is E / groups consecutive experts. Its value is its largest score, or, with a bias, the sum of its two
/// largest biased scores; the kept_groups groups of the largest values stay. The bias is state that the code that
/// balances the experts (SignBiasBalancer) writes between calls: it acts on the selection, not on the gates, and gets
/// no gradient. One group is plain top-k with a bias.
///
/// Throws Error(option) unless 1 <= kept_groups <= groups, groups divides E, groups <= 256, k is from 1 to the number
/// of experts in the kept groups, and the bias has 0 or E numbers.  Cost: choose_best, and two passes over E.
/// Source: DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, 2.1.2; Wang et al. 2024 (the bias), arXiv:2408.15664.
template <class T>
struct GroupedTopK {
  Index k = 1;
  Index groups = 1;
  Index kept_groups = 1;
  std::vector<T> bias = {};  ///< state

  GroupedTopK(Index k_, Index groups_ = 1, Index kept_groups_ = 1, std::vector<T> bias_ = {})
      : k(k_), groups(groups_), kept_groups(kept_groups_), bias(std::move(bias_)) {}

  void check(Index experts) const {
    require(groups >= 1 && groups <= most_groups && experts % groups == 0, ErrorCode::option,
            "GroupedTopK: expected a number of groups up to 256 that divides ", experts, " experts, found ", groups);
    require(kept_groups >= 1 && kept_groups <= groups, ErrorCode::option,
            "GroupedTopK: expected kept_groups from 1 to ", groups, " groups, found ", kept_groups);
    const Index eligible = experts / groups * kept_groups;
    require(k >= 1 && k <= eligible, ErrorCode::option, "GroupedTopK: expected k from 1 to ", eligible,
            " experts of the kept groups, found ", k);
    if (!bias.empty())
      require_equal(ErrorCode::option, "GroupedTopK: numbers of the bias", experts, Index(bias.size()));
    for (T b : bias)
      require(std::isfinite(b), ErrorCode::option, "GroupedTopK: expected a finite bias, found ", double(b),
              "; a logit of -infinity excludes an expert");
  }

  Index max_chosen(Index) const { return k; }
  bool takes_all(Index experts) const { return k >= experts && kept_groups == groups; }

  template <class F>
  void for_each_state(F&& f) {
    if (!bias.empty()) f("bias", std::span<T>(bias));
  }

  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    const int size = int(experts / groups);
    std::array<int, std::size_t(most_groups)> kept;
    keep_groups(scores, size, std::span(kept).first(std::size_t(kept_groups)));
    const auto expert = [&](int i) { return kept[std::size_t(i / size)] * size + i % size; };
    choose_best_by([&](int i) { return biased(scores, expert(i)); }, kept_groups * size, chosen.first(std::size_t(k)));
    for (int& e : chosen.first(std::size_t(k))) e = expert(e);
    return k;
  }

 private:
  static constexpr Index most_groups = 256;

  T biased(std::span<const T> scores, Index e) const {
    return bias.empty() ? scores[std::size_t(e)] : scores[std::size_t(e)] + bias[std::size_t(e)];
  }

  /// Writes the kept groups, in ascending order.
  void keep_groups(std::span<const T> scores, Index size, std::span<int> kept) const {
    std::iota(kept.begin(), kept.end(), 0);
    if (kept_groups == groups) return;
    std::array<T, std::size_t(most_groups)> value;
    for (Index g = 0; g < groups; ++g) value[std::size_t(g)] = value_of_group(scores, g * size, size);
    choose_best(std::span<const T>(value), groups, kept);
    std::ranges::sort(kept);
  }

  /// The two best are added only if there are two: of a group with one expert that may serve it is that one's score.
  /// NaN counts as -infinity, wherever it stands.
  T value_of_group(std::span<const T> scores, Index first, Index size) const {
    T largest = -std::numeric_limits<T>::infinity(), second = largest;
    for (Index e = first; e < first + size; ++e) {
      const T score = biased(scores, e), key = std::isnan(score) ? -std::numeric_limits<T>::infinity() : score;
      second = std::max(second, std::min(largest, key));
      largest = std::max(largest, key);
    }
    return bias.empty() || second == -std::numeric_limits<T>::infinity() ? largest : largest + second;
  }
};

static_assert(SelectPolicy<GroupedTopK<float>, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
