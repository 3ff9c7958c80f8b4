// SPDX-License-Identifier: MIT
// CallSize, ScratchOf: the scratch memory of policies, and the size of call that it is made for.
#pragma once

#include "mole/core/memory/memory_block.hpp"

#include <memory_resource>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The largest call that a workspace is made for.
struct CallSize {
  Index tokens = 0;
  Index pairs = 0;
  Index experts = 0;
  Index columns = 0;    ///< of the logits
  Index shared = 0;     ///< experts, the last ones, that have no logit and serve every token
  bool latent = false;  ///< the router reads the experts' latent, which then needs room for all ranks

  /// Throws Error(option) for sizes below 0, and for more than the ints of a routing can count.
  void check() const {
    checked_int("workspace: tokens", tokens);
    checked_int("workspace: pairs of token and expert", pairs);
    checked_int("workspace: experts", experts);
  }
};

/// The scratch of a policy that needs none.
struct NoScratch {};

namespace detail {
template <class Policy>
auto scratch_type() {
  if constexpr (requires { typename Policy::Scratch; })
    return std::type_identity<typename Policy::Scratch>();
  else
    return std::type_identity<NoScratch>();
}
}  // namespace detail

/// A policy that needs memory between or within calls names a struct `Scratch` and offers `scratch(size, arena)`.
template <class Policy>
using ScratchOf = typename decltype(detail::scratch_type<Policy>())::type;

/// The scratch of a policy for calls of that size, in the arena; NoScratch if it has none.
template <class Policy>
ScratchOf<Policy> scratch_for(const Policy& policy, const CallSize& size, Arena& arena) {
  if constexpr (requires { policy.scratch(size, arena); })
    return policy.scratch(size, arena);
  else
    return {};
}

/// The scratch of one policy in memory of its own, for calls outside of a layer.
template <class Policy>
class OwnedScratch {
 public:
  OwnedScratch(const Policy& policy, const CallSize& size,
               std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : block_(bytes_of([&](Arena& arena) { return scratch_for(policy, size, arena); }), memory) {
    Arena arena(block_.bytes());
    scratch_ = scratch_for(policy, size, arena);
  }

  ScratchOf<Policy>& operator*() { return scratch_; }

 private:
  MemoryBlock block_;
  ScratchOf<Policy> scratch_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
