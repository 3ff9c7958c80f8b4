// SPDX-License-Identifier: MIT
// ExpertWorkspace, Workspace: all memory that the calls of a layer need.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/layer/call_order.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The memory of apply() and apply_backward() of an ExpertLinear, in one block, and what the last call has left there.
/// One workspace per forward in flight; made by ExpertLinear::workspace, or by joint_workspace() for several layers.
/// Move-only; a moved-from one is empty.
template <class Experts, class Base>
struct ExpertWorkspace {
  ExpertWorkspace(const Experts& experts, const Base& base, const CallSize& size, Arena& arena)
      : experts_scratch(scratch_for(experts, size, arena)),
        base_scratch(scratch_for(base, size, arena)),
        max_tokens(size.tokens),
        room_for_pairs(size.pairs) {}

  Pass pass;
  ScratchOf<Experts> experts_scratch;
  ScratchOf<Base> base_scratch;
  CallOrder<typename Experts::Scalar> expert_calls;
  Index max_tokens, room_for_pairs;
  Index asked_pairs = 0;             ///< as workspace() was asked for; 0 stands for as many as a layer may need
  TakenByMove<std::uint64_t> shape;  ///< of the layer that it is laid out for
  bool routed = false;               ///< it is half of the workspace of a layer with a router
  MemoryBlock memory;                ///< that everything lies in
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
        gating_scratch(scratch_for(gating, size, arena)) {
    this->routed = true;
  }

  ScratchOf<Router> router_scratch;
  ScratchOf<Gating> gating_scratch;
  CallOrder<T> routing_calls;
  View<const T> latent;  ///< what a router that reads the latent was last shown; empty for one that reads tokens
};

namespace detail {
/// Abandons a trace when a role throws before keep(), so that losses and statistics meet no half of a call.
template <class T>
struct AbandonedUnlessKept {
  explicit AbandonedUnlessKept(Trace<T>& trace_) : trace(&trace_) {}
  AbandonedUnlessKept(const AbandonedUnlessKept&) = delete;
  AbandonedUnlessKept& operator=(const AbandonedUnlessKept&) = delete;
  ~AbandonedUnlessKept() {
    if (trace) trace->abandon();
  }
  void keep() { trace = nullptr; }

  Trace<T>* trace;
};

/// make(arena), a workspace for a layer of this shape, in one block of at least `bytes` from `memory`, which it owns.
template <class Make>
auto workspace_in(std::pmr::memory_resource* memory, const Make& make, std::uint64_t shape, std::size_t bytes) {
  MemoryBlock block(std::max(bytes, bytes_of(make)), memory);
  Arena arena(block.bytes());
  auto work = make(arena);
  work.memory = std::move(block);
  work.shape = shape;
  return work;
}

/// The same in the memory of `work`, for another layer. What the caller put there for a router stays.
template <class Workspace, class Make>
void lay_out_anew(Workspace& work, const Make& make, std::uint64_t shape) {
  const std::size_t bytes = bytes_of(make), room = work.memory.bytes().size();
  require(bytes <= room, ErrorCode::capacity, "workspace: expected one of ", bytes,
          " bytes, made for this layer, or for several with joint_workspace(); found one of ", room,
          " bytes, made for another or moved from");
  Arena arena(work.memory.bytes());
  auto fresh = make(arena);
  fresh.memory = std::move(work.memory);
  fresh.shape = shape;
  if constexpr (requires { work.router_scratch.carry; }) fresh.router_scratch.carry = work.router_scratch.carry;
  work = std::move(fresh);
}
}  // namespace detail

/// One workspace for all of some layers, of types that share a workspace's type but may differ in width, ranks, dropout
/// or shared experts: whichever of them is called finds enough memory. Changing from one layer to another costs a pass
/// over the memory that it needs.
///
///     auto work = joint_workspace(max_tokens, query, key, value);
template <class Layer, class... Others>
requires(std::same_as<typename Layer::Workspace, typename Others::Workspace>&&...)  //
    typename Layer::Workspace joint_workspace(Index max_tokens, const Layer& layer, const Others&... others) {
  return layer.workspace(max_tokens, 0, std::pmr::get_default_resource(),
                         std::max({layer.workspace_bytes(max_tokens), others.workspace_bytes(max_tokens)...}));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
