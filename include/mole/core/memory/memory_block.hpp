// SPDX-License-Identifier: MIT
// MemoryBlock: an owned block of bytes from a memory resource.
#pragma once

#include "mole/core/memory/arena.hpp"

#include <memory_resource>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Memory for an Arena: aligned to a cache line, owned by this object, and at the same address after a move.
class MemoryBlock {
 public:
  MemoryBlock() = default;
  MemoryBlock(std::size_t bytes, std::pmr::memory_resource* memory) : memory_(memory) {
    if (bytes > 0) bytes_ = {static_cast<std::byte*>(memory->allocate(bytes, Arena::line)), bytes};
  }
  MemoryBlock(MemoryBlock&& other) noexcept : bytes_(std::exchange(other.bytes_, {})), memory_(other.memory_) {}
  MemoryBlock& operator=(MemoryBlock&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(memory_, other.memory_);
    return *this;
  }
  ~MemoryBlock() {
    if (!bytes_.empty()) memory_->deallocate(bytes_.data(), bytes_.size(), Arena::line);
  }

  std::span<std::byte> bytes() { return bytes_; }

 private:
  std::span<std::byte> bytes_;
  std::pmr::memory_resource* memory_ = nullptr;
};

/// The bytes that `make(arena)` needs of an arena.
template <class Make>
std::size_t bytes_of(Make&& make) {
  Arena measure;
  static_cast<void>(make(measure));
  return measure.used();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
