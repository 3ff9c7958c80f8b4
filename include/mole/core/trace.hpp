// SPDX-License-Identifier: MIT
// Trace: logits, scores, routing and their gradients, for gates, losses and telemetry.
#pragma once

#include "mole/core/memory/taken_by_move.hpp"
#include "mole/core/pass.hpp"
#include "mole/core/routing.hpp"

#include <algorithm>
#include <limits>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Logits, scores and routing of one forward call, and the gradients that flow back into them.
///
///   logits, scores, d_logits, d_scores [N x columns]      d_gate [pairs]
///
/// | field              | written by                                          | read by                        |
/// | ------------------ | --------------------------------------------------- | ------------------------------ |
/// | logits             | the router, the gating for what it excludes         | the score, losses              |
/// | scores, routing    | the gating                                          | the experts, losses, telemetry |
/// | d_gate             | the experts' backward, losses                       | the gating's backward          |
/// | d_scores, d_logits | losses, then the gating's backward                  | the router's backward          |
///
/// A loss is a function of the trace: it adds to whichever gradient it differentiates, between forward and backward.
template <class T>
class Trace {
 public:
  /// For calls up to `size`, in memory of its own.
  explicit Trace(const CallSize& size, std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : block_(bytes_of([&](Arena& arena) { return Trace(size, arena); }), memory) {
    Arena arena(block_.bytes());
    lay_out(size, arena);
  }
  /// ... or within the memory of `arena`.
  Trace(const CallSize& size, Arena& arena) { lay_out(size, arena); }

  /// Begins a call: clears the gradients of the last one.
  void start(Index tokens, const Pass& pass_) {
    require(tokens >= 0 && tokens <= max_tokens(), ErrorCode::capacity, "Trace: made for ", max_tokens(),
            " tokens, found ", tokens);
    pass = pass_;
    tokens_ = tokens;
    pairs_ = 0;
    nan_tokens = 0;
    fill(d_logits(), T(0));
    fill(d_scores(), T(0));
  }
  /// Ends a call that failed: there are no tokens.
  void abandon() {
    tokens_ = pairs_ = 0;
    nan_tokens = 0;
    routing.start(experts_);
    routing.finish();
  }
  /// After the gating has chosen: one d_gate per pair, zero.
  void start_d_gate() {
    require(routing.pairs() <= Index(d_gate_.size()), ErrorCode::capacity, "Trace: expected at most ", d_gate_.size(),
            " pairs of token and expert, found ", routing.pairs());
    pairs_ = routing.pairs();
    std::ranges::fill(d_gate(), T(0));
  }

  Index tokens() const { return tokens_; }
  /// Tokens that pass.counts().
  Index counted_tokens() const {
    Index counted = 0;
    for (Index n = 0; n < tokens_; ++n) counted += pass.counts(n);
    return counted;
  }
  Index max_tokens() const { return logits_.rows(); }
  Index experts() const { return experts_; }
  /// Experts that the gating gives to every token: the last ones, which have no logit.
  Index shared() const { return shared_; }
  /// Experts that have a logit.
  Index scored_experts() const { return experts_ - shared_; }

  /// Must this expert not serve the token: is its logit -infinity, from the router or because the gating rules it out?
  /// It counts in no loss, and its logit gets no gradient.
  bool excluded(Index token, Index expert) const { return logits_(token, expert) < std::numeric_limits<T>::lowest(); }
  /// Is any expert excluded for the token? A loop without branches, to skip those that ask for each expert.
  bool excludes(Index token) const {
    unsigned any = 0;
    for (T logit : logits_.row(token).first(std::size_t(scored_experts())))
      any |= unsigned(logit < std::numeric_limits<T>::lowest());
    return any != 0;
  }
  /// Is this expert excluded for every token of [first, end) that pass.counts()? Stops where it is not.
  bool excluded(Index first, Index end, Index expert) const {
    for (Index n = first; n < end; ++n)
      if (pass.counts(n) && !excluded(n, expert)) return false;
    return true;
  }

  View<T> logits() { return logits_.top(tokens_); }
  View<T> scores() { return scores_.top(tokens_); }
  View<T> d_logits() { return d_logits_.top(tokens_); }
  View<T> d_scores() { return d_scores_.top(tokens_); }
  std::span<T> d_gate() { return d_gate_.first(std::size_t(pairs_)); }
  /// The same, for what indexes it by the pairs of the routing. Throws Error(order), naming `who`, if the routing was
  /// replaced after start_d_gate().
  std::span<T> d_gate_of_routing(std::string_view who) {
    require(pairs_ == routing.pairs(), ErrorCode::order, who, ": expected the routing that d_gate was made for, of ",
            Index(pairs_), " pairs, found another of ", routing.pairs());
    return d_gate();
  }
  View<const T> logits() const { return logits_.top(tokens_); }
  View<const T> scores() const { return scores_.top(tokens_); }
  View<const T> d_logits() const { return d_logits_.top(tokens_); }

  Pass pass;
  Routing<T> routing;
  Index nan_tokens = 0;  ///< tokens with a NaN among their logits; they are routed all the same, NaN last

 private:
  void lay_out(const CallSize& size, Arena& arena) {
    for (View<T>* matrix : {&logits_, &scores_, &d_logits_, &d_scores_})
      *matrix = arena.matrix<T>(size.tokens, size.columns);
    d_gate_ = arena.array<T>(size.pairs);
    routing = Routing<T>(size, arena);
    experts_ = size.experts;
    shared_ = size.shared;
  }

  MemoryBlock block_;  // empty within an arena
  TakenByMove<Index> tokens_, pairs_;
  TakenByMove<Index> experts_, shared_;
  View<T> logits_, scores_, d_logits_, d_scores_;
  std::span<T> d_gate_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
