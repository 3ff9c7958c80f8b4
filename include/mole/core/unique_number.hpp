// SPDX-License-Identifier: MIT
// unique_number(): numbers that a program does not have twice.
#pragma once

#include <atomic>
#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// A number that no thread of the program had before. Never 0. Threads take blocks of numbers, so that they do not wait
/// for each other.   O(1), about 1 ns
inline std::uint64_t unique_number() {
  constexpr std::uint64_t block = 1 << 20;
  static std::atomic<std::uint64_t> next_block = 0;
  thread_local std::uint64_t last = 0;
  if (last % block == 0) last = next_block.fetch_add(1, std::memory_order_relaxed) * block;
  return ++last;
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
