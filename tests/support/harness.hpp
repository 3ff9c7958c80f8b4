// SPDX-License-Identifier: MIT
// Calls one policy as a layer would.
#pragma once

#include "mole/core/call.hpp"
#include "mole/execution/reference.hpp"

#include <utility>

namespace support {

/// The call of a policy under an execution, with scratch for so many tokens, pairs and experts.
template <class Policy, class Execution = mole::Reference>
struct Harness {
  Harness(const Policy& policy, mole::Index tokens, mole::Index pairs = 0, mole::Pass b = {}, Execution x = {})
      : execution(std::move(x)),
        pass(b),
        memory(policy, {.tokens = tokens, .pairs = pairs, .experts = pairs, .latent = true}) {}

  mole::Call<Execution, mole::ScratchOf<Policy>> call() { return {execution, pass, scratch()}; }
  mole::ScratchOf<Policy>& scratch() { return *memory; }

  Execution execution;
  mole::Pass pass;
  mole::OwnedScratch<Policy> memory;
};

}  // namespace support
