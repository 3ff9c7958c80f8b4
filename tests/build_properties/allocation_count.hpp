// SPDX-License-Identifier: MIT
// AllocationCount: the number of heap allocations since the object was made.
#pragma once

namespace mole::test {

/// Counts operator new in all its forms and malloc, calloc, realloc, aligned_alloc, memalign and posix_memalign, of all
/// threads; allocation_count.cpp takes their place.
class AllocationCount {
 public:
  AllocationCount() : start_(total()) {}
  long found() const { return total() - start_; }

 private:
  static long total();
  long start_;
};

}  // namespace mole::test
