// SPDX-License-Identifier: MIT
// How much memory an array takes from a resource.
#pragma once

#include "mole/core/config.hpp"

namespace mole {

/// Bytes of an array of `count` numbers, rounded up so that arrays one after the other keep their alignment: a buffer
/// of as many bytes as arrays add up to holds them all.
template <class T>
constexpr std::size_t array_bytes(Index count) {
  constexpr std::size_t grain = alignof(std::max_align_t);
  return (std::size_t(count) * sizeof(T) + grain - 1) / grain * grain;
}

}  // namespace mole
