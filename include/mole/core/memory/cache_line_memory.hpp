// SPDX-License-Identifier: MIT
// CacheLineMemory: a memory resource whose arrays begin at cache lines.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <new>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A memory resource that allocates from the default resource, aligned to at least 64 bytes.
///
/// Memory returns to the resource that was the default when it was allocated: a cache line in front of each array
/// records it. Thread-safe if that resource is. Unaligned vector loads that cross two cache lines cost two reads:
/// adding 8 of 32 rows of 768 floats to a token's y takes 0.34 us with unaligned rows, and 0.23 us with aligned ones.
class CacheLineMemory final : public std::pmr::memory_resource {
 public:
  static constexpr std::size_t line = 64;

  /// The instance that all matrices share.
  static CacheLineMemory* shared() {
    static CacheLineMemory memory;
    return &memory;
  }

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    const std::size_t before = std::max(alignment, line);
    std::pmr::memory_resource* const from = std::pmr::get_default_resource();
    auto* const memory = static_cast<std::byte*>(from->allocate(bytes + before, before));
    ::new (memory) std::pmr::memory_resource*(from);
    return memory + before;
  }
  void do_deallocate(void* array, std::size_t bytes, std::size_t alignment) override {
    const std::size_t before = std::max(alignment, line);
    std::byte* const memory = static_cast<std::byte*>(array) - before;
    (*std::launder(reinterpret_cast<std::pmr::memory_resource**>(memory)))->deallocate(memory, bytes + before, before);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
