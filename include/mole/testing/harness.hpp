// SPDX-License-Identifier: MIT
// Harness: calls one policy as a layer would.
#pragma once

#include "mole/core/call.hpp"
#include "mole/execution/reference.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// An execution, a pass and scratch of its own for calls of `policy` up to a size.
///
///   Harness<MyRouter> harness(router, tokens);
///   router.forward(x, logits, harness.call());
///
/// One harness for a forward and its backward: what the policy keeps between them lies in the scratch.
template <class Policy, class Execution = Reference>
struct Harness {
  Harness(const Policy& policy, const CallSize& size, Pass pass_ = {}, Execution execution_ = {})
      : execution(std::move(execution_)), pass(pass_), memory(policy, size) {}
  /// For policies whose scratch does not depend on the number of experts, or not on more than `pairs`.
  Harness(const Policy& policy, Index tokens, Index pairs = 0, Pass pass_ = {}, Execution execution_ = {})
      : Harness(policy, CallSize{.tokens = tokens, .pairs = pairs, .experts = pairs, .latent = true}, pass_,
                std::move(execution_)) {}

  Call<Execution, ScratchOf<Policy>> call() { return {execution, pass, scratch()}; }
  ScratchOf<Policy>& scratch() { return *memory; }

  Execution execution;
  Pass pass;
  OwnedScratch<Policy> memory;
};

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
