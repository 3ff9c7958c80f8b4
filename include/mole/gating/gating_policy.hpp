// SPDX-License-Identifier: MIT
// GatingPolicy: the contract of gatings: which experts serve a token, with which gates?
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/trace.hpp"
#include "mole/execution/execution_policy.hpp"

#include <concepts>
#include <optional>
#include <string>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with
///     check(experts)               throws Error(option) when its options do not fit the number of experts
///     columns(experts)             of the logits: one per expert that is scored, then others, if any (such as a
///                                  threshold per token)
///     max_pairs(tokens, experts)   the most pairs that choose() can make
///     choose(trace, call)          trace.logits() -> trace.scores(), trace.routing
/// A gating whose last experts have no logit, because they serve every token, gives their number:   shared()
template <class G, class T, class Execution = ExecutionArchetype>
concept GatingPolicy = std::copy_constructible<G> && requires(const G& gating, Trace<T>& trace, Index size) {
  gating.check(size);
  { gating.max_pairs(size, size) } -> std::convertible_to<Index>;
  { gating.columns(size) } -> std::convertible_to<Index>;
  gating.choose(trace, call_of<G, Execution>());
};

/// The number of experts that `gating` gives to every token.
template <class G>
Index shared_experts(const G& gating) {
  if constexpr (requires { gating.shared(); }) return gating.shared();
  return 0;
}

/// A gating whose gates are differentiable:   backward(trace, call)
/// adds d_gate's share to d_scores, then the share of d_scores to d_logits; the chosen set is a constant.
template <class G, class T, class Execution = ExecutionArchetype>
concept TrainableGatingPolicy = GatingPolicy<G, T, Execution> && requires(const G& gating, Trace<T>& trace) {
  gating.backward(trace, call_of<G, Execution>());
};

/// Does anything learn from the gradient of the gates? If not, a layer's backward does not compute it. A gating that
/// has no use for d_gate says so by   static constexpr bool has_gradient = false
template <class G>
constexpr bool gates_have_gradient = !requires {
  requires !G::has_gradient;
};

/// A gating that may serve all tokens alike, so that its layer can be merged:
///     constant_gate(experts)      the gate of each of so many experts for every token; none if it depends on the token
///     token_dependence(experts)   what depends on the token, in words; empty if nothing does
/// Both are about its options, not about scores: NaN and infinite scores make no difference. They do not cover calls
/// that leave tokens out, force experts or rule them out, nor logits of -infinity, which exclude an expert.
template <class G>
concept ConstantGatingPolicy = requires(const G& gating, Index experts) {
  { gating.constant_gate(experts) } -> std::same_as<std::optional<double>>;
  { gating.token_dependence(experts) } -> std::convertible_to<std::string>;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
