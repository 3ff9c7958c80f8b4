// SPDX-License-Identifier: MIT
// real_time: what a thread that must not wait does all the same. Linux with glibc, in a program of its own.
#pragma once

#include <cstdint>

namespace real_time {

/// What was done inside of sections, by all threads.
struct Violations {
  std::int64_t allocations = 0, locks = 0, system_calls = 0;
  int system_call = -1;  ///< the number of the last one

  bool any() const { return allocations + locks + system_calls > 0; }
};
Violations violations();

/// From here on the kernel hands each system call of this thread, but for those that end it or get memory, to a
/// handler, which counts it and lets it fail with ENOSYS. Returns false where the kernel has no such filters.
bool trap_system_calls();

/// While one lives on a thread, its allocations, frees and locks are counted; they take place nevertheless.
class Section {
 public:
  Section();
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;
  ~Section();
};

}  // namespace real_time
