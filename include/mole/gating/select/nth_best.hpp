// SPDX-License-Identifier: MIT
// NthBest: the selection of experts by their places in the order of a token's scores.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Keeps the experts at given places in the order of each token's scores: 0 is the best, 1 the second best, and so on.
///
///   scores [N x E]   ->   exactly one expert per place for each token, in the order of the places
///
/// Ties go to the lower expert index; NaN sorts last. With Renormalized a single expert has gate 1 if its score is
/// above 0 (eq. 4 of the paper); with Raw the gate is its own small probability (the released port to DeepSeekMoE).
///
/// Throws Error(option) unless there is a place, and places ascend strictly from 0 to at most E - 1.
/// O(E (p + 1)) for the last place p, no allocation. The order is searched place by place, because room for p + 1
/// experts would be room for as many pairs in every workspace: as fast as choose_best for places 1 and 2, six times
/// as long for place 63 of 64.
/// Source: Shi et al. 2024 (SCMoE), arXiv:2405.14507, whose weak pass it routes. The paper counts from 1, and its main
/// setting, rank-2, is place 1; the released code (github.com/DavidFanzz/SCMoE) counts from 0, as here.
struct NthBest {
  std::vector<Index> places{1};

  void check(Index experts) const {
    require(!places.empty(), ErrorCode::option, "NthBest: expected at least 1 place, found none");
    Index least = 0;
    for (Index place : places) {
      require(place >= least && place < experts, ErrorCode::option,
              "NthBest: expected places that ascend from 0 to less than ", experts, " experts, found ", place,
              " where ", least, " is the least that may follow");
      least = place + 1;
    }
  }

  Index max_chosen(Index) const { return Index(places.size()); }
  bool takes_all(Index experts) const { return Index(places.size()) >= experts; }

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    std::size_t kept = 0;
    int expert = -1;
    for (Index place = 0; kept < places.size(); ++place) {
      expert = next(scores, experts, expert);
      if (place == places[kept]) chosen[kept++] = expert;
    }
    return Index(kept);
  }

 private:
  /// The first expert after `before`, or of all if that is -1.
  template <class T>
  static int next(std::span<const T> scores, Index experts, int before) {
    const auto ordered = [&](int i, int j) {
      return chosen_before(scores[std::size_t(i)], i, scores[std::size_t(j)], j);
    };
    int first = -1;
    for (int e = 0; e < experts; ++e) {
      if (first >= 0 && scores[std::size_t(e)] <= scores[std::size_t(first)]) continue;  // mostly true; never for NaN
      if ((before < 0 || ordered(before, e)) && (first < 0 || ordered(e, first))) first = e;
    }
    return first;
  }
};

static_assert(SelectPolicy<NthBest, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
