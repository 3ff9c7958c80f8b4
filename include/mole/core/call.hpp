// SPDX-License-Identifier: MIT
// Call: the execution, the settings of the pass and the scratch memory that a layer hands to its policies.
#pragma once

#include "mole/core/pass.hpp"
#include "mole/core/scratch.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The last argument of what routers, gatings, experts and bases compute, so that their functions can grow without
/// breaking signatures. Passed by value. Parts of a gate, factors(scratch) and executions get none, and a router may do
/// without.
template <class Execution, class Scratch>
struct Call {
  const Execution& execution;
  const Pass& pass;
  Scratch& scratch;

  /// The call of a policy inside this one, whose scratch is `part` of this one's.
  template <class Part>
  Call<Execution, Part> with(Part& part) const {
    return {execution, pass, part};
  }
};

template <class Execution, class Scratch>
Call(const Execution&, const Pass&, Scratch&) -> Call<Execution, Scratch>;

/// Declared, never defined: the call of a Policy, for the contracts of roles; by value, as layers pass it.
template <class Policy, class Execution>
Call<Execution, ScratchOf<Policy>> call_of();

}  // namespace mole

#include "mole/core/macros_on.hpp"
