// SPDX-License-Identifier: MIT
// HugePages: a memory resource of 2 MiB pages, for weights that do not fit the TLB.
#pragma once

#include "mole/core/config.hpp"

#include <memory_resource>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "mole/core/macros_off.hpp"

namespace mole {

/// A memory resource that asks the system for huge pages; the system may grant ordinary ones.
///
/// Allocations below 1 MiB, and all of them on systems other than Linux, come from `upstream`. Measured on weights of
/// 4096 x 4096 floats: see bench/NOTES.md. Thread-safe if upstream is. Throws std::bad_alloc.
class HugePages final : public std::pmr::memory_resource {
 public:
  explicit HugePages(std::pmr::memory_resource* upstream = std::pmr::new_delete_resource()) : upstream_(upstream) {}

 private:
  static constexpr std::size_t page = std::size_t(2) << 20, least = page / 2;

  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
#if defined(__linux__)
    if (bytes >= least) {
      void* const memory = ::operator new(rounded(bytes), std::align_val_t(page));
      ::madvise(memory, rounded(bytes), MADV_HUGEPAGE);  // a hint: if it is refused, only speed changes
      return memory;
    }
#endif
    return upstream_->allocate(bytes, alignment);
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t alignment) override {
#if defined(__linux__)
    if (bytes >= least) return ::operator delete(memory, std::align_val_t(page));
#endif
    upstream_->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  static std::size_t rounded(std::size_t bytes) {
    return (bytes + page - 1) / page * page;
  }

  std::pmr::memory_resource* upstream_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
