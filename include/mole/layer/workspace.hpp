// SPDX-License-Identifier: MIT
// ExpertWorkspace, Workspace: all memory that the calls of one layer need.
#pragma once

#include "mole/core/trace.hpp"

namespace mole {

/// The memory of apply() and apply_backward() of an ExpertLinear, in one block. One workspace per forward in flight;
/// made by ExpertLinear::workspace. Move-only.
template <class Experts, class Base>
struct ExpertWorkspace {
  ExpertWorkspace(const Experts& experts, const Base& base, const CallSize& size, Arena& arena)
      : experts_scratch(scratch_for(experts, size, arena)),
        base_scratch(scratch_for(base, size, arena)),
        max_tokens(size.tokens),
        made_for_experts(size.experts) {}

  Pass pass;
  ScratchOf<Experts> experts_scratch;
  ScratchOf<Base> base_scratch;
  Index max_tokens, made_for_experts;
  MemoryBlock memory;  ///< that everything lies in
};

/// The workspace of a MixtureLinear: additionally a Trace, for gates, losses and telemetry, and the scratch of the
/// roles that route.
template <class T, class Router, class Gating, class Experts, class Base>
struct Workspace : Trace<T>, ExpertWorkspace<Experts, Base> {
  using Half = ExpertWorkspace<Experts, Base>;
  using Trace<T>::max_tokens;
  using Trace<T>::pass;

  Workspace(const Router& router, const Gating& gating, const Experts& experts, const Base& base, const CallSize& size,
            Arena& arena)
      : Trace<T>(size, arena),
        Half(experts, base, size, arena),
        router_scratch(scratch_for(router, size, arena)),
        gating_scratch(scratch_for(gating, size, arena)) {}

  ScratchOf<Router> router_scratch;
  ScratchOf<Gating> gating_scratch;
  View<const T> latent;  ///< what a router that reads the latent was last shown; empty for one that reads tokens
};

namespace detail {
/// make(arena), a workspace, in one block from `memory`, which it owns.
template <class Make>
auto workspace_in(std::pmr::memory_resource* memory, Make make) {
  MemoryBlock block(bytes_of(make), memory);
  Arena arena(block.bytes());
  auto work = make(arena);
  work.memory = std::move(block);
  return work;
}
}  // namespace detail

}  // namespace mole
