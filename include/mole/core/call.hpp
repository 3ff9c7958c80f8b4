// SPDX-License-Identifier: MIT
// What a policy is handed beside its inputs and outputs.
#pragma once

#include "mole/core/batch.hpp"

#include <memory_resource>

namespace mole {

/// The last argument of every role's calls, so that they can grow without breaking signatures.
template <class Execution, class Scratch>
struct Call {
  const Execution& execution;
  const Batch& batch;
  Scratch& scratch;
};

/// The largest call that a workspace is made for, and where its memory comes from.
struct Capacity {
  Index tokens = 0;
  Index pairs = 0;
  bool latent = false;  ///< the router reads the experts' latent
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
};

/// The scratch of a policy that needs none.
struct NoScratch {};

namespace detail {
template <class Policy>
struct ScratchOf {
  using type = NoScratch;
};
template <class Policy>
requires requires {
  typename Policy::Scratch;
}
struct ScratchOf<Policy> {
  using type = typename Policy::Scratch;
};
}  // namespace detail

/// A policy that needs memory between or within calls names a struct `Scratch` and offers `scratch(capacity)`.
template <class Policy>
using ScratchOf = typename detail::ScratchOf<Policy>::type;

template <class Policy>
ScratchOf<Policy> scratch_for(const Policy& policy, const Capacity& capacity) {
  if constexpr (requires { policy.scratch(capacity); })
    return policy.scratch(capacity);
  else
    return {};
}

}  // namespace mole
