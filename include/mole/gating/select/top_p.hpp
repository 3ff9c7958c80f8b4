// SPDX-License-Identifier: MIT
// TopP: the selection of the best experts until their scores sum to p.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/kernel/element_loops.hpp"
#include "mole/kernel/largest_in_lanes.hpp"

#include <algorithm>
#include <array>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Keeps experts in the order of their scores until the sum of the kept scores passes p.
///
///   scores [N x E], not negative   ->   from min_k to max_k experts per token
///
/// With c_j the sum of the j best scores, the crossing expert is the first whose c_j > p, or >= p unless `strict`. It
/// is the last one kept, or the first one left out unless `crossing`; then p = 0 and min_k = 0 keep no expert. If
/// rounding keeps every sum below p, all are kept. A NaN crosses.
///
///   Dynamic_MoE, MixLoRA-dynamic   {.p = 0.4}, {.p = 0.8}; the former's paper is not strict, its code is
///   DynMoLE, without its entropy   {.p = 0.75, .crossing = false, .min_k = 2}
///
/// Throws Error(option) unless p is 0 or from 1e-30 up, 0 <= min_k <= E and max_k is 0, for E, or from max(1, min_k) to
/// E.
/// Cost: choose_best of the kept, rounded up to a power of 4.
/// Source: Huang et al. 2024 (Dynamic_MoE), arXiv:2403.07652; ZhenweiAn/Dynamic_MoE, mikecovlee/DynMoLE.
struct TopP {
  double p = 0.5;
  bool crossing = true;
  Index min_k = 1;
  Index max_k = 0;  // 0: no bound
  bool strict = true;

  void check(Index experts) const {
    require(p == 0 || p >= 1e-30, ErrorCode::option, "TopP: expected a p of 0, or from 1e-30 up, found ", p);
    require(min_k >= 0 && min_k <= experts, ErrorCode::option, "TopP: expected min_k from 0 to ", experts,
            " experts, found ", min_k);
    require(max_k == 0 || (max_k >= std::max<Index>(1, min_k) && max_k <= experts), ErrorCode::option,
            "TopP: expected max_k 0, or from min_k = ", min_k, " to ", experts, " experts, found ", max_k);
  }

  Index max_chosen(Index experts) const { return max_k == 0 ? experts : max_k; }
  bool takes_all(Index experts) const { return min_k >= experts; }  // no p guarantees it: a NaN crosses

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    const Index most = max_chosen(experts);
    for (Index room = std::clamp<Index>(4, min_k, most);; room = std::min(most, 4 * room)) {
      const auto best = chosen.first(std::size_t(room));
      choose_best(scores, experts, best);
      const Index kept = count(scores, std::span<const int>(best));
      if (kept < room || room == most) return std::max(kept, min_k);
    }
  }

  template <class V, class Arch = typename V::arch_type>
  V select(std::span<const V> scores, Index experts, std::span<V> chosen) const {
    using kernel::select;
    using T = typename V::value_type;
    std::array<V, std::size_t(kernel::LargestInLanes<Arch, T>::most)> best;
    const Index most = max_chosen(experts);
    kernel::LargestInLanes<Arch, T>{}(scores.data(), experts, most, best.data(), chosen.data());
    V sum(T(0)), kept(T(0)), one(T(1));
    for (Index j = 0; j < most; ++j) {
      const auto before = within(sum);
      sum += best[std::size_t(j)];
      one = select(crossing ? before : within(sum), one, V(T(0)));
      kept += one;
    }
    return max(kept, V(T(min_k)));
  }

 private:
  /// Has a sum not yet crossed?
  template <class V>
  auto within(const V& sum) const {
    const V bound(static_cast<kernel::ScalarOf<V>>(p));
    return strict ? sum <= bound : sum < bound;
  }

  /// How many of `best` are kept, apart from min_k.
  template <class T>
  Index count(std::span<const T> scores, std::span<const int> best) const {
    T sum = 0;
    Index kept = 0;
    for (int e : best) {
      const bool before = within(sum);
      sum += scores[std::size_t(e)];
      if (!(crossing ? before : within(sum))) break;
      ++kept;
    }
    return kept;
  }
};

static_assert(SelectPolicy<TopP, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
