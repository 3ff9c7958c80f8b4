// SPDX-License-Identifier: MIT
// Routing: the experts that serve each token, and their gates.
#pragma once

#include "mole/core/scratch.hpp"

#include <algorithm>
#include <numeric>
#include <span>

namespace mole {

/// A sparse [tokens x experts] matrix of gates with any number of experts per token.
///
/// Pairs (token, expert, gate) are stored token by token; `pairs_of(expert)` lists them expert by expert, tokens
/// ascending, which is the order in which gradients of an expert are summed. A pair with gate 0 still is a pair: its
/// gate has a gradient. Two ways to build a routing, token by token, or at once when the counts are known:
///
///   start(experts) -> push(expert, gate)*, end_token(), ... for each token -> finish()
///   stage() -> start(experts, counts) -> fill experts_of(n), gates_of(n) -> finish()      stage() may be left out
template <class T>
class Routing {
 public:
  /// Grows in memory of its own.
  Routing() = default;
  /// Has room for calls up to `size`; a larger one throws Error(capacity).
  Routing(const CallSize& size, Arena& arena)
      : max_pairs_(size.pairs),
        token_begin_(arena.vector<int>(size.tokens + 1)),
        expert_(arena.vector<int>(size.pairs)),
        token_(arena.vector<int>(size.pairs)),
        expert_begin_(arena.vector<int>(size.experts + 1)),
        by_expert_(arena.vector<int>(size.pairs)),
        gate_(arena.vector<T>(size.pairs)) {}

  /// Every gate that is not 0 becomes a pair.   gates [N x E]
  static Routing from_dense(View<const T> gates) {
    Routing routing;
    routing.start(gates.cols());
    for (Index n = 0; n < gates.rows(); ++n) {
      for (Index e = 0; e < gates.cols(); ++e)
        if (gates(n, e) != 0) routing.push(int(e), gates(n, e));
      routing.end_token();
    }
    routing.finish();
    return routing;
  }

  /// Room for `slots` experts per token, to be written before start() is told how many of them count.
  View<int> stage(Index experts, Index tokens, Index slots) {
    if (max_pairs_ >= 0 && tokens * slots > max_pairs_) too_many(tokens * slots);
    experts_ = experts;
    staged_slots_ = slots;
    expert_.resize(std::size_t(tokens * slots));
    return {expert_.data(), tokens, slots};
  }

  void start(Index experts) { start(experts, {}); }
  /// Begins a routing that is filled in any order: token n has counts[n] pairs, which the caller writes through
  /// experts_of() and gates_of() before finish(). Staged experts are already in place.
  void start(Index experts, std::span<const int> counts) {
    const Index pairs = std::accumulate(counts.begin(), counts.end(), Index(0));
    if (max_pairs_ >= 0 && pairs > max_pairs_) {
      start(experts);
      too_many(pairs);
    }
    experts_ = experts;
    expert_begin_.clear();
    token_begin_.assign(1, 0);
    for (int count : counts) token_begin_.push_back(token_begin_.back() + count);
    close_gaps();
    for (auto* column : {&expert_, &token_}) column->resize(std::size_t(pairs));
    gate_.resize(std::size_t(pairs));
    for (Index n = 0; n < tokens(); ++n)
      for (Index p = first_pair(n); p < first_pair(n + 1); ++p) token_[std::size_t(p)] = int(n);
  }
  void push(int expert, T gate) {
    MOLE_ASSERT(expert >= 0 && expert < experts_);
    if (max_pairs_ >= 0 && pairs() >= max_pairs_) too_many(pairs() + 1);
    expert_.push_back(expert);
    token_.push_back(int(tokens()));
    gate_.push_back(gate);
  }
  void end_token() { token_begin_.push_back(int(expert_.size())); }

  /// Orders the pairs by expert with a counting sort, so tokens ascend within an expert.  O(pairs + E)
  void finish() {
    expert_begin_.assign(std::size_t(experts_) + 1, 0);
    by_expert_.resize(expert_.size());
    dense_ = every_token_has_every_expert();
    if (dense_) return finish_dense();
    for (int e : expert_) {
      MOLE_ASSERT(e >= 0 && e < experts_);
      ++expert_begin_[std::size_t(e) + 1];
    }
    for (Index e = 0; e < experts_; ++e) expert_begin_[std::size_t(e) + 1] += expert_begin_[std::size_t(e)];
    for (std::size_t p = 0; p < expert_.size(); ++p)
      by_expert_[std::size_t(expert_begin_[std::size_t(expert_[p])]++)] = int(p);
    for (Index e = experts_; e > 0; --e) expert_begin_[std::size_t(e)] = expert_begin_[std::size_t(e) - 1];
    expert_begin_[0] = 0;
  }
  /// Does every token have every expert, in index order? Then the pairs form a matrix [tokens x experts].
  bool dense() const { return dense_; }
  bool finished() const { return Index(expert_begin_.size()) == experts_ + 1; }

  Index tokens() const { return std::max<Index>(1, Index(token_begin_.size())) - 1; }
  Index experts() const { return experts_; }
  Index pairs() const { return Index(expert_.size()); }

  int expert(Index pair) const { return expert_[std::size_t(pair)]; }
  int token(Index pair) const { return token_[std::size_t(pair)]; }
  T gate(Index pair) const { return gate_[std::size_t(pair)]; }
  std::span<T> gates() { return {gate_.data(), gate_.size()}; }
  std::span<const T> gates() const { return {gate_.data(), gate_.size()}; }

  /// The pairs of token n are first_pair(n) ... first_pair(n + 1) - 1, in the order of their selection.
  Index first_pair(Index token) const { return token_begin_[std::size_t(token)]; }
  std::span<int> experts_of(Index token) { return of_token(std::span(expert_.data(), expert_.size()), token); }
  std::span<const int> experts_of(Index token) const {
    return of_token(std::span(expert_.data(), expert_.size()), token);
  }
  std::span<const T> gates_of(Index token) const { return of_token(gates(), token); }
  std::span<T> gates_of(Index token) { return of_token(gates(), token); }
  /// The part of `per_pair`, one number per pair, that belongs to `token`.
  template <class U>
  std::span<U> of_token(std::span<U> per_pair, Index token) const {
    return per_pair.subspan(std::size_t(first_pair(token)), std::size_t(first_pair(token + 1) - first_pair(token)));
  }

  /// All pairs, expert by expert; those of expert e begin at first_of_expert(e).
  std::span<const int> by_expert() const { return {by_expert_.data(), by_expert_.size()}; }
  Index first_of_expert(Index expert) const { return expert_begin_[std::size_t(expert)]; }
  Index load(Index expert) const { return first_of_expert(expert + 1) - first_of_expert(expert); }
  std::span<const int> pairs_of(Index expert) const {
    return by_expert().subspan(std::size_t(first_of_expert(expert)), std::size_t(load(expert)));
  }
  /// Those of tokens [begin, end) only.  O(log pairs)
  std::span<const int> pairs_of(Index expert, Index begin, Index end) const {
    const std::span<const int> all = pairs_of(expert);
    if (begin <= 0 && end >= tokens()) return all;
    const auto before = [&](int pair, Index token) { return token_[std::size_t(pair)] < token; };
    const auto first = std::lower_bound(all.begin(), all.end(), begin, before);
    return {first, std::lower_bound(first, all.end(), end, before)};
  }

 private:
  bool every_token_has_every_expert() const {
    if (pairs() != tokens() * experts_) return false;
    for (Index n = 0; n < tokens(); ++n)
      for (Index e = 0; e < experts_; ++e)
        if (expert_[std::size_t(n * experts_ + e)] != int(e)) return false;
    return true;
  }
  /// A counting sort would write to one place per expert in turn, and these often share a cache set: 8 ns per pair at
  /// N = 1024, E = 64; this takes 1 ns.
  void finish_dense() {
    for (Index e = 0; e < experts_; ++e) {
      expert_begin_[std::size_t(e) + 1] = int((e + 1) * tokens());
      for (Index n = 0; n < tokens(); ++n) by_expert_[std::size_t(e * tokens() + n)] = int(n * experts_ + e);
    }
  }

  /// Moves staged experts to where their pairs are.
  void close_gaps() {
    for (Index n = 0; staged_slots_ > 0 && n < tokens(); ++n)
      std::copy_n(expert_.begin() + n * staged_slots_, first_pair(n + 1) - first_pair(n),
                  expert_.begin() + first_pair(n));
    staged_slots_ = 0;
  }

  [[noreturn]] void too_many(Index found) const {
    detail::fail(ErrorCode::capacity, "Routing: room for ", max_pairs_, " pairs of token and expert, found at least ",
                 found);
  }

  Index experts_ = 0, staged_slots_ = 0;
  bool dense_ = false;
  Index max_pairs_ = -1;  // no bound
  ScratchVector<int> token_begin_, expert_, token_, expert_begin_, by_expert_;
  ScratchVector<T> gate_;
};

}  // namespace mole
