// SPDX-License-Identifier: MIT
// EntropyHybrid: the selection of all experts for undecided tokens, of the top p for the others.
#pragma once

#include "mole/core/entropy.hpp"
#include "mole/gating/select/top_p.hpp"

#include <algorithm>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// All experts if the entropy of the scores, over its maximum, is above the threshold; else those of a TopP. Experts
/// with a score of -infinity count in neither.
///
///   scores [N x E], probabilities   ->   from confident.min_k to E experts per token
///
/// The defaults are DynMoLE's: the crossing expert is left out, and at least two stay. A threshold of 1 or more never
/// selects all experts. Throws Error(option) unless the threshold is at least 0, and the entropy and `confident` pass
/// their checks.  O(E) powers, and the cost of TopP.
/// Source: Li et al. 2025 (DynMoLE), arXiv:2504.00661; mikecovlee/DynMoLE.
struct EntropyHybrid {
  TopP confident{.p = 0.75, .crossing = false, .min_k = 2};
  double threshold = 0.9;
  Entropy entropy{.order = 1.1, .shift = 1e-5, .offset = 1e-10};

  void check(Index experts) const {
    confident.check(experts);
    require(threshold >= 0, ErrorCode::option, "EntropyHybrid: expected a threshold from 0 up, found ", threshold);
    entropy.check("EntropyHybrid");
  }

  Index max_chosen(Index experts) const { return experts; }
  bool takes_all(Index experts) const { return confident.takes_all(experts); }

  template <class T>
  Index select(std::span<const T> scores, Index experts, std::span<int> chosen) const {
    if (threshold < 1 && undecided(scores.first(std::size_t(experts)))) {
      choose_best(scores, experts, chosen.first(std::size_t(experts)));
      return experts;
    }
    return confident.select(scores, experts, chosen);
  }

 private:
  template <class T>
  bool undecided(std::span<const T> scores) const {
    const auto possible = Index(scores.size()) - std::ranges::count(scores, -std::numeric_limits<T>::infinity());
    return possible > 1 && entropy(scores) > threshold * entropy.largest(possible);
  }
};

static_assert(SelectPolicy<EntropyHybrid, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
