// SPDX-License-Identifier: MIT
// The selection of a fixed number of experts.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select_policy.hpp"

#include <algorithm>
#include <numeric>
#include <string>

namespace mole {

/// Keeps the k largest scores of each token.
///
/// Ties go to the lower expert index, so the choice does not depend on threads or SIMD width. NaN sorts last.
/// Throws Error(option) if k < 1 or k > E.  O(E log k) a token, no memory beyond `chosen`.
/// Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 5.
struct TopK {
  Index k = 1;

  void check(Index experts) const {
    if (k < 1 || k > experts)
      throw Error(ErrorCode::option,
                  "TopK: expected k from 1 to " + std::to_string(experts) + " experts, found " + std::to_string(k));
  }

  Index max_chosen(Index) const { return k; }

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    const auto before = [&](int i, int j) {
      return chosen_before(scores[std::size_t(i)], i, scores[std::size_t(j)], j);
    };
    // A heap of the k best so far, the worst of them on top.
    const auto end = chosen.begin() + k;
    std::iota(chosen.begin(), end, 0);
    std::make_heap(chosen.begin(), end, before);
    for (int e = int(k); e < experts; ++e) {
      if (!before(e, chosen.front())) continue;
      std::pop_heap(chosen.begin(), end, before);
      *(end - 1) = e;
      std::push_heap(chosen.begin(), end, before);
    }
    std::sort_heap(chosen.begin(), end, before);
    return k;
  }
};

static_assert(SelectPolicy<TopK, float>);

}  // namespace mole
