// SPDX-License-Identifier: MIT
// The contract of gatings: who serves the token, with which gate?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/trace.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>
#include <optional>
#include <string>

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

/// A gating whose gates are differentiable:   backward(trace, call)
/// adds d_gate's share to d_scores, then d_scores' to d_logits; the chosen set is a constant.
template <class G, class T, class Execution = ExecutionArchetype>
concept TrainableGatingPolicy = GatingPolicy<G, T, Execution> &&
    requires(const G& gating, Trace<T>& trace, Call<Execution, ScratchOf<G>>& call) {
  gating.backward(trace, call);
};

/// A gating that may serve all tokens alike, and can be merged where it does:
///     constant_gate(experts)    what every one of so many experts counts for every token; none: that depends on it
///     token_dependence(experts)   what depends on the token, in words; empty where nothing does
/// Both are about its options, not about scores: NaN and infinite ones make no difference. Nor is it asked about calls
/// that leave tokens out or force experts.
template <class G>
concept ConstantGatingPolicy = requires(const G& gating, Index experts) {
  { gating.constant_gate(experts) } -> std::same_as<std::optional<double>>;
  { gating.token_dependence(experts) } -> std::convertible_to<std::string>;
};

}  // namespace mole
