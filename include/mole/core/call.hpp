// SPDX-License-Identifier: MIT
// What a policy is handed beside its inputs and outputs.
#pragma once

#include "mole/core/memory/allocation.hpp"
#include "mole/core/pass.hpp"

#include <memory_resource>

namespace mole {

/// The last argument of every role's calls, so that they can grow without breaking signatures.
template <class Execution, class Scratch>
struct Call {
  const Execution& execution;
  const Pass& pass;
  Scratch& scratch;
};

/// The largest call that a workspace is made for, and where its memory comes from.
struct CallSize {
  Index tokens = 0;
  Index pairs = 0;
  bool latent = false;  ///< the router reads the experts' latent
  std::pmr::memory_resource* memory = std::pmr::get_default_resource();
  Index experts = 0;
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
ScratchOf<Policy> scratch_for(const Policy& policy, const CallSize& capacity) {
  if constexpr (requires { policy.scratch(capacity); })
    return policy.scratch(capacity);
  else
    return {};
}

namespace detail {
/// Counts what it hands out.
class CountingMemory final : public std::pmr::memory_resource {
 public:
  std::size_t bytes = 0;

 private:
  void* do_allocate(std::size_t size, std::size_t alignment) override {
    bytes += array_bytes<std::byte>(Index(size));
    return std::pmr::new_delete_resource()->allocate(size, alignment);
  }
  void do_deallocate(void* memory, std::size_t size, std::size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(memory, size, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }
};
}  // namespace detail

/// What scratch_for() will take from the capacity's memory: the policy's own scratch_bytes(capacity), or, where a
/// policy does not say, what making its scratch once takes.
template <class Policy>
std::size_t scratch_bytes_for(const Policy& policy, CallSize capacity) {
  if constexpr (requires { policy.scratch_bytes(capacity); }) {
    return policy.scratch_bytes(capacity);
  } else if constexpr (requires { policy.scratch(capacity); }) {
    detail::CountingMemory memory;
    capacity.memory = &memory;
    static_cast<void>(policy.scratch(capacity));
    return memory.bytes;
  } else {
    return 0;
  }
}

}  // namespace mole
