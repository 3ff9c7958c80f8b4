// SPDX-License-Identifier: MIT
// TopK: the selection of the k best experts.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/kernel/largest_in_lanes.hpp"

#include <array>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Keeps the k largest scores of each token.
///
/// Ties go to the lower expert index, so the choice does not depend on threads or SIMD width. NaN sorts last.
/// Throws Error(option) if k < 1 or k > E.  Cost: choose_best, or O(E k) operations for a vector of tokens.
/// Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 5.
struct TopK {
  Index k = 1;

  void check(Index experts) const {
    require(k >= 1 && k <= experts, ErrorCode::option, "TopK: expected k from 1 to ", experts, " experts, found ", k);
  }

  Index max_chosen(Index) const { return k; }
  bool takes_all(Index experts) const { return k >= experts; }  // NaN sorts last, and the last is chosen

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    choose_best(scores, experts, chosen.first(std::size_t(k)));
    return k;
  }

  template <class V, class Arch = typename V::arch_type>
  V select(std::span<const V> scores, Index experts, std::span<V> chosen) const {
    using T = typename V::value_type;
    std::array<V, std::size_t(kernel::LargestInLanes<Arch, T>::most)> best;
    kernel::LargestInLanes<Arch, T>{}(scores.data(), experts, k, best.data(), chosen.data());
    return T(k);
  }
};

static_assert(SelectPolicy<TopK, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
