// SPDX-License-Identifier: MIT
// mix_bits: the bijection behind all random numbers.
#pragma once

#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A bijection of 64-bit numbers whose outputs look independent of each other.
/// Source: the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
constexpr std::uint64_t mix_bits(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
