// SPDX-License-Identifier: MIT
// ExpertChoice: the selection in which experts choose their tokens.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/gating/select/whole_call_select_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Each expert takes the tokens with its largest scores, factor * T / E of them and at least one.
///
///   scores [N x E]   ->   from 0 to E experts per token, the same load for every expert
///
/// T is the number of routed tokens without a forced expert, of each sequence or of the whole call; no expert takes
/// more than T. E counts excluded experts, too. There is nothing to balance, and a token's experts depend on tokens
/// that come after it. Ties go to the earlier token. Throws Error(option) unless factor > 0.  O(N) plus the cost of
/// choose_best for each expert. Source: Zhou et al. 2022, arXiv:2202.09368.
struct ExpertChoice {
  double factor = 2;  ///< mean number of experts per token
  bool per_sequence = false;

  struct Scratch {
    ScratchVector<int> routed, taken;  // tokens
  };

  void check(Index) const {
    require(factor > 0 && std::isfinite(factor), ErrorCode::option,
            "ExpertChoice: expected a finite factor above 0, found ", factor);
  }

  Index max_pairs(Index tokens, Index experts) const {
    return per_sequence ? tokens * experts : experts * taken_of(tokens, experts);
  }

  /// True if every expert may take every token.
  bool takes_all(Index experts) const { return factor >= double(experts); }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.vector<int>(size.tokens), arena.vector<int>(size.tokens)};
  }

  template <class T, class Emit>
  void select_whole_call(View<const T> scores, Index experts, const Pass& pass, Emit&& emit, Scratch& scratch) const {
    const Index sequences = per_sequence ? pass.sequences() : 1;
    for (Index s = 0; s < sequences; ++s) {
      const Index end = per_sequence ? pass.end_of(s, scores.rows()) : scores.rows();
      scratch.routed.clear();
      for (Index n = per_sequence ? pass.first_of(s) : 0; n < end; ++n)
        if (pass.chooses(n)) scratch.routed.push_back(int(n));
      const Index tokens = Index(scratch.routed.size());
      scratch.taken.resize(std::size_t(taken_of(tokens, experts)));
      for (int e = 0; e < experts; ++e) {
        const auto score = [&](int i) {
          const int n = scratch.routed[std::size_t(i)];
          return emit.excludes(n, e) ? -std::numeric_limits<T>::infinity() : scores(n, e);
        };
        choose_best_by(score, tokens, {scratch.taken.data(), scratch.taken.size()});
        for (int i : scratch.taken)
          if (const int n = scratch.routed[std::size_t(i)]; !emit.excludes(n, e)) emit(n, e);
      }
    }
  }

 private:
  Index taken_of(Index tokens, Index experts) const {
    const double share = std::min(double(tokens), factor * double(tokens) / double(experts));
    return std::min(tokens, std::max<Index>(1, Index(share)));
  }
};

static_assert(WholeCallSelectPolicy<ExpertChoice, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
