// SPDX-License-Identifier: MIT
// Routing: the experts that serve each token, and their gates.
#pragma once

#include "mole/core/memory/taken_by_move.hpp"
#include "mole/core/scratch.hpp"
#include "mole/core/unique_number.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A sparse [tokens x experts] matrix of gates with any number of experts per token.
///
/// Pairs (token, expert, gate) are stored token by token; `pairs_of(expert)` lists them expert by expert, tokens
/// ascending, which is the order in which gradients of an expert are summed. A pair with gate 0 still is a pair: its
/// gate has a gradient. Two ways to build a routing, token by token, or at once when the counts are known:
///
///   start(experts) -> push(expert, gate)*, end_token(), ... for each token -> finish()
///   start(experts, counts) -> fill experts_to_fill(n), gates_of(n) -> finish()
///   stage() -> fill it -> start(experts, counts) -> fill gates_of(n) -> finish()
///
/// A routing may come from outside, so it is checked in every build: an expert out of range, or twice in one token,
/// throws Error(option), a step out of turn Error(order). The routing is then unfinished, and no layer takes it. Of a
/// finished one only the gates may still be changed.
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

  /// One expert with a gate of 1 for each token, such as the adapter of its task; none for a negative one.
  static Routing from_labels(std::span<const int> expert_of_token, Index experts) {
    Routing routing;
    routing.start(experts);
    for (int expert : expert_of_token) {
      if (expert >= 0) routing.push(expert, T(1));
      routing.end_token();
    }
    routing.finish();
    return routing;
  }

  /// Room for `slots` experts per token, to be written before start() is told how many of them count.
  View<int> stage(Index experts, Index tokens, Index slots) {
    const Index places = checked_product("Routing: staged experts", tokens, slots);
    expert_begin_.clear();
    require_room(places);
    experts_ = experts;
    staged_ = {tokens, slots};
    expert_.resize(std::size_t(places));
    return {expert_.data(), tokens, slots};
  }

  void start(Index experts) { start(experts, {}); }
  /// Begins a routing that is filled in any order: token n has counts[n] pairs, which the caller writes through
  /// experts_to_fill() and gates_of() before finish(). Staged experts are already in place.
  void start(Index experts, std::span<const int> counts) {
    expert_begin_.clear();
    checked_int("Routing: experts", experts);
    Index pairs = 0;
    for (int count : counts) pairs += checked_int("Routing: experts of a token", count);
    if (!counts.empty()) require_staged(counts);
    if (pairs > room()) start(experts);  // empty, whatever the last routing was
    require_room(pairs);
    experts_ = experts;
    token_begin_.assign(1, 0);
    for (int count : counts) token_begin_.push_back(token_begin_.back() + count);
    close_gaps();
    for (auto* column : {&expert_, &token_}) column->resize(std::size_t(pairs));
    gate_.resize(std::size_t(pairs));
    for (Index n = 0; n < tokens(); ++n)
      for (Index p = first_pair(n); p < first_pair(n + 1); ++p) token_[std::size_t(p)] = int(n);
  }
  void push(int expert, T gate) {
    require(!finished(), ErrorCode::order, "Routing: expected start() before push(), found a finished routing");
    if (expert < 0 || expert >= experts_) refuse(expert);
    require_room(pairs() + 1);
    expert_.push_back(expert);
    token_.push_back(int(tokens()));
    gate_.push_back(gate);
  }
  void end_token() {
    require(!finished(), ErrorCode::order, "Routing: expected start() before end_token(), found a finished routing");
    token_begin_.push_back(int(expert_.size()));
  }

  /// Orders the pairs by expert with a counting sort, so tokens ascend within an expert.  O(pairs + E)
  void finish() {
    const Index ended = token_begin_.empty() ? 0 : token_begin_.back();
    require(ended == pairs(), ErrorCode::order, "Routing: expected end_token() after the last of ", pairs(),
            " pairs, found it after ", ended);
    version_ = detail::unique_number();
    expert_begin_.assign(std::size_t(experts_) + 1, 0);
    by_expert_.resize(expert_.size());
    dense_ = every_token_has_every_expert();
    if (dense_) return finish_dense();
    for (int e : expert_) {
      if (e < 0 || e >= experts_) refuse(e);
      ++expert_begin_[std::size_t(e) + 1];
    }
    for (Index e = 0; e < experts_; ++e) expert_begin_[std::size_t(e) + 1] += expert_begin_[std::size_t(e)];
    for (std::size_t p = 0; p < expert_.size(); ++p)
      by_expert_[std::size_t(expert_begin_[std::size_t(expert_[p])]++)] = int(p);
    for (Index e = experts_; e > 0; --e) expert_begin_[std::size_t(e)] = expert_begin_[std::size_t(e) - 1];
    expert_begin_[0] = 0;
    for (std::size_t q = 1; q < by_expert_.size(); ++q)
      if (const Index before = by_expert_[q - 1], p = by_expert_[q];
          expert(before) == expert(p) && token(before) == token(p))
        refuse_twice(p);
  }
  /// Does every token have every expert, in index order? Then the pairs form a matrix [tokens x experts].
  bool dense() const { return dense_; }
  bool finished() const { return Index(expert_begin_.size()) == experts_ + 1; }
  /// New with every finish() in the program: tells a routing from every other, but not from its copies.
  std::uint64_t version() const { return version_; }

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
  std::span<const int> experts_of(Index token) const {
    return of_token(std::span(expert_.data(), expert_.size()), token);
  }
  /// The same, to be written between start(experts, counts) and finish().
  std::span<int> experts_to_fill(Index token) {
    require(!finished(), ErrorCode::order,
            "Routing: expected start() before experts_to_fill(), found a finished routing");
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
    for (Index n = 0; n < tokens(); ++n) {
      if (first_pair(n + 1) != (n + 1) * experts_) return false;
      for (Index e = 0; e < experts_; ++e)
        if (expert_[std::size_t(n * experts_ + e)] != int(e)) return false;
    }
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

  /// Are there places for `counts` among the staged ones?
  void require_staged(std::span<const int> counts) {
    if (staged_.tokens == 0 && staged_.slots == 0) return;
    const Staged staged = std::exchange(staged_, {});
    require_equal(ErrorCode::shape, "Routing: tokens of start() after stage()", staged.tokens, Index(counts.size()));
    for (int count : counts)
      require(count <= staged.slots, ErrorCode::shape, "Routing: expected at most the ", staged.slots,
              " experts of a token that were staged, found ", count);
    staged_ = staged;
  }
  /// Moves staged experts to where their pairs are.
  void close_gaps() {
    for (Index n = 0; staged_.slots > 0 && n < tokens(); ++n)
      std::copy_n(expert_.begin() + n * staged_.slots, first_pair(n + 1) - first_pair(n),
                  expert_.begin() + first_pair(n));
    staged_ = {};
  }

  Index room() const { return max_pairs_ >= 0 ? max_pairs_ : std::numeric_limits<int>::max(); }
  void require_room(Index pairs) const {
    require(pairs <= room(), ErrorCode::capacity, "Routing: room for ", room(),
            " pairs of token and expert, found at least ", pairs);
  }
  [[noreturn]] void refuse(int expert) {
    expert_begin_.clear();
    detail::fail(ErrorCode::option, {"Routing: expected experts from 0 to ", experts_ - 1, ", found ", expert});
  }
  [[noreturn]] void refuse_twice(Index pair) {
    expert_begin_.clear();
    detail::fail(ErrorCode::option, {"Routing: expected an expert once in a token, found expert ", expert(pair),
                                     " twice in token ", token(pair)});
  }

  struct Staged {
    Index tokens = 0, slots = 0;
  };

  TakenByMove<Index> experts_;
  Staged staged_;
  bool dense_ = false;
  Index max_pairs_ = -1;  // no bound
  std::uint64_t version_ = 0;
  ScratchVector<int> token_begin_, expert_, token_, expert_begin_, by_expert_;
  ScratchVector<T> gate_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
