// SPDX-License-Identifier: MIT
// The selection that turns tokens away when an expert is full.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/state.hpp"
#include "mole/gating/whole_call_select_policy.hpp"
#include "mole/gating/select_policy.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace mole {

/// Who takes an expert's seats first.
enum class SeatOrder {
  position,     ///< the first choices of all tokens, token by token, then their second ones ...
  probability,  ///< the largest scores
  batch,        ///< as position, tokens with the larger best score before others
};

/// How many tokens an expert serves.
struct Seats {
  double factor = 1;  ///< times an even share of the choices, rounded up
  Index least = 1;    ///< ... and not below this
  Index fixed = 0;    ///< above 0: exactly so many
  SeatOrder order = SeatOrder::position;
  bool per_sequence = false;  ///< seats of each sequence, or of the call
};

/// What another selection chooses, as long as an expert has seats: seats of an expert = factor * choices / E.
///
///   scores [N x (E + extra)]   ->   from 0 to max_chosen(E) experts a token
///
/// A pair that finds no seat is dropped before the weights are made; a token that loses all of them keeps the base's
/// output. Throws Error(option) unless factor > 0, least >= 0 and fixed >= 0.  O(pairs log pairs).
/// Source: position: Lepikhin et al. 2020 (GShard), arXiv:2006.16668, Fedus et al. 2021 (Switch), arXiv:2101.03961;
/// probability: Liu et al. 2022, as in Megatron-LM; batch: Riquelme et al. 2021 (V-MoE), arXiv:2106.05974.
template <class Select>
struct ExpertCapacity {
  Select select;
  Seats seats;

  explicit ExpertCapacity(Select select_, Seats seats_ = {}) : select(std::move(select_)), seats(seats_) {}

  struct Scratch {
    std::pmr::vector<int> begin, expert, token, order;  // pairs, token by token
    std::pmr::vector<int> taken;                        // seats of each expert
    std::pmr::vector<unsigned char> kept;
  };

  void check(Index experts) const {
    if constexpr (requires { select.check(experts); }) select.check(experts);
    if (!(seats.factor > 0) || seats.least < 0 || seats.fixed < 0)
      throw Error(ErrorCode::option,
                  "ExpertCapacity: expected a factor above 0 and numbers of seats from 0 up, found factor = " +
                      std::to_string(seats.factor) + ", least = " + std::to_string(seats.least) +
                      ", fixed = " + std::to_string(seats.fixed));
  }

  Index max_pairs(Index tokens, Index experts) const { return tokens * select.max_chosen(experts); }

  /// Where nobody is turned away: a full choice needs a seat a token of every expert.
  bool takes_all(Index experts) const {
    if constexpr (requires { select.takes_all(experts); })
      return select.takes_all(experts) && seats.fixed == 0 && seats.factor >= 1;
    return false;
  }

  template <class F>
  void walk_state(F&& f) {
    walk_state_within("select", select, f);
  }

  Scratch scratch(const Capacity& capacity) const {
    const auto ints = [&](Index size) {
      std::pmr::vector<int> numbers(capacity.memory);
      numbers.reserve(std::size_t(size));
      return numbers;
    };
    Scratch scratch{ints(capacity.tokens + 1), ints(capacity.pairs),
                    ints(capacity.pairs),      ints(capacity.pairs),
                    ints(capacity.experts),    std::pmr::vector<unsigned char>(capacity.memory)};
    scratch.kept.reserve(std::size_t(capacity.pairs));
    return scratch;
  }

  template <class T, class Emit>
  void select_whole_call(View<const T> scores, Index experts, const Pass& pass, Emit&& emit, Scratch& scratch) const {
    const Index sequences = seats.per_sequence ? pass.sequences() : 1;
    for (Index s = 0; s < sequences; ++s) {
      const Index first = seats.per_sequence ? pass.first_of(s) : 0;
      const Index end = seats.per_sequence ? pass.end_of(s, scores.rows()) : scores.rows();
      choose(scores, experts, pass, first, end, scratch);
      seat(scores, experts, first, scratch);
      for (std::size_t p = 0; p < scratch.expert.size(); ++p)
        if (scratch.kept[p]) emit(scratch.token[p], scratch.expert[p]);
    }
  }

 private:
  /// The choices of tokens [first, end).
  template <class T>
  void choose(View<const T> scores, Index experts, const Pass& pass, Index first, Index end, Scratch& scratch) const {
    const auto slots = std::size_t(select.max_chosen(experts));
    scratch.begin.assign(1, 0);
    scratch.expert.clear();
    scratch.token.clear();
    for (Index n = first; n < end; ++n) {
      const std::size_t before = scratch.expert.size();
      if (pass.routes(n)) {
        scratch.expert.resize(before + slots);
        const Index count = select.select(scores.row(n), experts, std::span<int>(scratch.expert).subspan(before));
        scratch.expert.resize(before + std::size_t(count));
      }
      scratch.token.resize(scratch.expert.size(), int(n));
      scratch.begin.push_back(int(scratch.expert.size()));
    }
  }

  template <class T>
  void seat(View<const T> scores, Index experts, Index first, Scratch& scratch) const {
    const Index pairs = Index(scratch.expert.size());
    scratch.order.resize(std::size_t(pairs));
    for (int p = 0; p < pairs; ++p) scratch.order[std::size_t(p)] = p;
    const auto begin = [&](int p) { return scratch.begin[std::size_t(scratch.token[std::size_t(p)] - first)]; };
    const auto score = [&](int p) { return scores(scratch.token[std::size_t(p)], scratch.expert[std::size_t(p)]); };
    std::sort(scratch.order.begin(), scratch.order.end(), [&](int p, int q) {
      if (seats.order == SeatOrder::probability) return chosen_before(score(p), p, score(q), q);
      const int slot_p = p - begin(p), slot_q = q - begin(q);
      if (slot_p != slot_q) return slot_p < slot_q;
      return seats.order == SeatOrder::position ? p < q : chosen_before(score(begin(p)), p, score(begin(q)), q);
    });
    const Index room = seats_of(pairs, experts);
    scratch.taken.assign(std::size_t(experts), 0);
    scratch.kept.assign(std::size_t(pairs), 0);
    for (int p : scratch.order)
      scratch.kept[std::size_t(p)] = scratch.taken[std::size_t(scratch.expert[std::size_t(p)])]++ < room;
  }

  Index seats_of(Index pairs, Index experts) const {
    if (seats.fixed > 0) return seats.fixed;
    return std::max(seats.least, Index(std::ceil(seats.factor * double(pairs) / double(experts))));
  }
};

}  // namespace mole
