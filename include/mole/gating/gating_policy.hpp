// SPDX-License-Identifier: MIT
// The contract of gatings: who serves the token, with which weight?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/trace.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>

namespace mole {

/// Satisfied by a copyable type with
///     check(experts)               throws Error(option) when its options do not fit so many experts
///     max_pairs(tokens, experts)   the most pairs that choose() can make
///     extra()                      columns of the logits beyond one an expert (a threshold of the token, say)
///     choose(trace, call)          trace.logits() -> trace.scores(), trace.routing
template <class G, class T, class Execution = ExecutionArchetype>
concept GatingPolicy = std::copy_constructible<G> &&
    requires(const G& gating, Trace<T>& trace, Index size, Call<Execution, ScratchOf<G>>& call) {
  gating.check(size);
  { gating.max_pairs(size, size) } -> std::convertible_to<Index>;
  { gating.extra() } -> std::convertible_to<Index>;
  gating.choose(trace, call);
};

/// A gating whose weights are differentiable:   backward(trace, call)
/// adds d_weight's share to d_scores, then d_scores' to d_logits; the chosen set is a constant.
template <class G, class T, class Execution = ExecutionArchetype>
concept TrainableGatingPolicy = GatingPolicy<G, T, Execution> &&
    requires(const G& gating, Trace<T>& trace, Call<Execution, ScratchOf<G>>& call) {
  gating.backward(trace, call);
};

/// A gating that gives every expert the same weight for every token, and so can be merged:   constant_weight()
template <class G>
concept ConstantGatingPolicy = requires(const G& gating) {
  { gating.constant_weight() } -> std::convertible_to<double>;
};

}  // namespace mole
