// SPDX-License-Identifier: MIT
// ExpertCapacity: a selection under an upper bound of tokens per expert.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/state.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/gating/select/whole_call_select_policy.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which pairs an expert keeps when more tokens choose it than its capacity allows.
enum class CapacityPriority {
  position,     ///< the first choices of all tokens, token by token, then their second ones ...
  probability,  ///< the largest scores
  batch,        ///< as position, tokens with the larger best score before others
};

/// How many tokens an expert serves: its capacity.
struct CapacityOptions {
  double factor = 1;  ///< times an even share of the choices, rounded up
  Index min = 1;      ///< ... and not below this
  Index fixed = 0;    ///< above 0: exactly this capacity
  CapacityPriority priority = CapacityPriority::position;
  bool per_sequence = false;  ///< a capacity for each sequence instead of one for the call
};

/// The choices of another selection, up to the capacity of each expert: factor * choices / E pairs.
///
///   scores [N x (E + extra)]   ->   from 0 to max_chosen(E) experts per token
///
/// A pair beyond the capacity is dropped before the gates are made; a token that loses all of its pairs keeps the
/// base's output. Throws Error(option) unless factor > 0, min >= 0 and fixed >= 0.  O(pairs log pairs).
/// Source: position: Lepikhin et al. 2020 (GShard), arXiv:2006.16668, Fedus et al. 2021 (Switch), arXiv:2101.03961;
/// probability: Liu et al. 2022, as in Megatron-LM; batch: Riquelme et al. 2021 (V-MoE), arXiv:2106.05974.
template <class Select>
struct ExpertCapacity {
  Select select;
  CapacityOptions options;

  explicit ExpertCapacity(Select select_, CapacityOptions options_ = {})
      : select(std::move(select_)), options(options_) {}

  struct Scratch {
    ScratchVector<int> begin, expert, token, order;  // pairs, token by token
    ScratchVector<int> taken;                        // pairs of each expert so far
    ScratchVector<unsigned char> kept;
  };

  void check(Index experts) const {
    if constexpr (requires { select.check(experts); }) select.check(experts);
    require(options.factor > 0 && std::isfinite(options.factor) && options.min >= 0 && options.fixed >= 0,
            ErrorCode::option,
            "ExpertCapacity: expected a finite factor above 0 and capacities from 0 up, found factor = ",
            options.factor, ", min = ", options.min, ", fixed = ", options.fixed);
  }

  Index max_pairs(Index tokens, Index experts) const { return tokens * select.max_chosen(experts); }

  /// True only if every expert has capacity for every token.
  bool takes_all(Index experts) const {
    if constexpr (requires { select.takes_all(experts); })
      return select.takes_all(experts) && options.fixed == 0 && options.factor >= 1;
    return false;
  }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("select", select, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.vector<int>(size.tokens + 1), arena.vector<int>(size.pairs),
            arena.vector<int>(size.pairs),      arena.vector<int>(size.pairs),
            arena.vector<int>(size.experts),    arena.vector<unsigned char>(size.pairs)};
  }

  template <class T, class Emit>
  void select_whole_call(View<const T> scores, Index experts, const Pass& pass, Emit&& emit, Scratch& scratch) const {
    const Index sequences = options.per_sequence ? pass.sequences() : 1;
    for (Index s = 0; s < sequences; ++s) {
      const Index first = options.per_sequence ? pass.first_of(s) : 0;
      const Index end = options.per_sequence ? pass.end_of(s, scores.rows()) : scores.rows();
      choose(scores, experts, pass, emit, first, end, scratch);
      keep(scores, experts, first, scratch);
      for (std::size_t p = 0; p < scratch.expert.size(); ++p)
        if (scratch.kept[p]) emit(scratch.token[p], scratch.expert[p]);
    }
  }

 private:
  /// The choices of tokens [first, end) that are up to the selection.
  template <class T, class Emit>
  void choose(View<const T> scores, Index experts, const Pass& pass, const Emit& emit, Index first, Index end,
              Scratch& scratch) const {
    const auto slots = std::size_t(select.max_chosen(experts));
    scratch.begin.assign(1, 0);
    scratch.expert.clear();
    scratch.token.clear();
    for (Index n = first; n < end; ++n) {
      const std::size_t before = scratch.expert.size();
      if (pass.chooses(n)) {
        scratch.expert.resize(before + slots);
        const std::span<int> chosen(scratch.expert.data() + before, slots);
        const Index count = select.select(scores.row(n), experts, chosen);
        const auto kept =
            std::remove_if(chosen.begin(), chosen.begin() + count, [&](int e) { return emit.excludes(n, e); });
        scratch.expert.resize(before + std::size_t(kept - chosen.begin()));
      }
      scratch.token.resize(scratch.expert.size(), int(n));
      scratch.begin.push_back(int(scratch.expert.size()));
    }
  }

  template <class T>
  void keep(View<const T> scores, Index experts, Index first, Scratch& scratch) const {
    const Index pairs = Index(scratch.expert.size());
    scratch.order.resize(std::size_t(pairs));
    for (int p = 0; p < pairs; ++p) scratch.order[std::size_t(p)] = p;
    const auto begin = [&](int p) { return scratch.begin[std::size_t(scratch.token[std::size_t(p)] - first)]; };
    const auto score = [&](int p) { return scores(scratch.token[std::size_t(p)], scratch.expert[std::size_t(p)]); };
    std::sort(scratch.order.begin(), scratch.order.end(), [&](int p, int q) {
      if (options.priority == CapacityPriority::probability) return chosen_before(score(p), p, score(q), q);
      const int slot_p = p - begin(p), slot_q = q - begin(q);
      if (slot_p != slot_q) return slot_p < slot_q;
      return options.priority == CapacityPriority::position ? p < q
                                                            : chosen_before(score(begin(p)), p, score(begin(q)), q);
    });
    const Index capacity = capacity_of(pairs, experts);
    scratch.taken.assign(std::size_t(experts), 0);
    scratch.kept.assign(std::size_t(pairs), 0);
    for (int p : scratch.order)
      scratch.kept[std::size_t(p)] = scratch.taken[std::size_t(scratch.expert[std::size_t(p)])]++ < capacity;
  }

  Index capacity_of(Index pairs, Index experts) const {
    if (options.fixed > 0) return options.fixed;
    const double even = std::ceil(double(pairs) / double(experts) * options.factor);
    return std::max(options.min, Index(std::min(even, double(pairs))));
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
