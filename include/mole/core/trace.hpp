// SPDX-License-Identifier: MIT
// What routing leaves behind: all that gates, losses and telemetry see.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/pass.hpp"
#include "mole/core/routing.hpp"

namespace mole {

/// Logits, scores and routing of one forward call, and the gradients that flow back into them.
///
///   logits, scores, d_logits, d_scores [N x (E + extra)]      d_gate [pairs]
///
/// A loss is a function of the trace: it adds to whichever gradient it differentiates, between forward and backward.
template <class T>
class Trace {
 public:
  explicit Trace(std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : routing(memory),
        logits_(0, 0, memory),
        scores_(0, 0, memory),
        d_logits_(0, 0, memory),
        d_scores_(0, 0, memory),
        d_gate_(memory) {}

  /// The memory that reserve() takes.
  static std::size_t bytes_for(Index tokens, Index experts, Index extra, Index pairs) {
    return 4 * array_bytes<T>(tokens * (experts + extra)) + array_bytes<T>(pairs) +
           Routing<T>::bytes_for(tokens, experts, pairs);
  }

  /// Takes all memory that calls of up to `tokens` tokens and `pairs` pairs need.
  void reserve(Index tokens, Index experts, Index extra, Index pairs) {
    auto* memory = d_gate_.get_allocator().resource();
    for (Matrix<T>* m : {&logits_, &scores_, &d_logits_, &d_scores_}) *m = Matrix<T>(tokens, experts + extra, memory);
    d_gate_.reserve(std::size_t(pairs));
    routing.reserve(tokens, experts, pairs);
    experts_ = experts;
  }

  /// Begins a call: the gradients of the last one are gone.
  void start(Index tokens, const Pass& call) {
    pass = call;
    tokens_ = tokens;
    nan_tokens = 0;
    fill(d_logits(), T(0));
    fill(d_scores(), T(0));
  }
  /// After the gate has chosen: one d_gate a pair, zero.
  void start_d_gate() { d_gate_.assign(std::size_t(routing.pairs()), T(0)); }

  Index tokens() const { return tokens_; }
  Index max_tokens() const { return logits_.rows(); }
  Index experts() const { return experts_; }
  /// Experts that have a score: all but the shared ones, which come last and serve every token.
  Index scored_experts() const { return experts_ - shared; }

  View<T> logits() { return logits_.view().top(tokens_); }
  View<T> scores() { return scores_.view().top(tokens_); }
  View<T> d_logits() { return d_logits_.view().top(tokens_); }
  View<T> d_scores() { return d_scores_.view().top(tokens_); }
  std::span<T> d_gate() { return d_gate_; }
  View<const T> logits() const { return logits_.view().top(tokens_); }
  View<const T> scores() const { return scores_.view().top(tokens_); }
  View<const T> d_logits() const { return d_logits_.view().top(tokens_); }

  Pass pass;
  Routing<T> routing;
  Index shared = 0;      ///< experts that the gate gives every token
  Index nan_tokens = 0;  ///< tokens with a NaN among their logits; they are routed all the same, NaN last

 private:
  Index tokens_ = 0, experts_ = 0;
  Matrix<T> logits_, scores_, d_logits_, d_scores_;
  std::pmr::vector<T> d_gate_;
};

}  // namespace mole
