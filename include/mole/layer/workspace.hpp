// SPDX-License-Identifier: MIT
// All memory that the calls of one layer need.
#pragma once

#include "mole/core/call.hpp"
#include "mole/core/trace.hpp"

namespace mole {

/// A Trace, which gates, losses and telemetry see, and the scratch of each role. One workspace per forward in flight;
/// made by MixtureLinear::workspace.
template <class T, class Router, class Gating, class Experts, class Base>
struct Workspace : Trace<T> {
  Workspace(const Router& router, const Gating& gating, const Experts& experts, const Base& base, Index extra,
            const CallSize& capacity)
      : Trace<T>(capacity.memory),
        router_scratch(scratch_for(router, capacity)),
        gating_scratch(scratch_for(gating, capacity)),
        experts_scratch(scratch_for(experts, capacity)),
        base_scratch(scratch_for(base, capacity)) {
    Trace<T>::reserve(capacity.tokens, experts.experts(), extra, capacity.pairs);
  }

  /// The memory that a workspace takes from the capacity's resource.
  static std::size_t bytes_for(const Router& router, const Gating& gating, const Experts& experts, const Base& base,
                               Index extra, const CallSize& capacity) {
    return Trace<T>::bytes_for(capacity.tokens, experts.experts(), extra, capacity.pairs) +
           scratch_bytes_for(router, capacity) + scratch_bytes_for(gating, capacity) +
           scratch_bytes_for(experts, capacity) + scratch_bytes_for(base, capacity);
  }

  ScratchOf<Router> router_scratch;
  ScratchOf<Gating> gating_scratch;
  ScratchOf<Experts> experts_scratch;
  ScratchOf<Base> base_scratch;
  View<const T> latent;  ///< what a router that reads the latent was last shown; empty for one that reads tokens
};

}  // namespace mole
