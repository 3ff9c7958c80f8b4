// SPDX-License-Identifier: MIT
// Fp4Base: a frozen base of weights that are floats of four bits.
#pragma once

#include "mole/base/four_bit_weight.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Floats of a sign, two bits of exponent and one of fraction, divided by the largest, 12: bit 3 of a code is the sign,
/// so codes are not in the order of their levels, and zero has two, 0 and 8.
/// Source: bitsandbytes 95f9af30, functional.py, get_4bit_type.
struct Fp4Levels {
  static constexpr const char* name = "Fp4Base";
  static constexpr bool signed_scale = false;
  static constexpr std::array<float, 16> levels{
      0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  6.0f / 12,  2.0f / 12,  3.0f / 12,
      0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -6.0f / 12, -2.0f / 12, -3.0f / 12};

  /// The code of the nearest level; a tie goes to the lower level, and a positive number near zero to code 8, as in
  /// the release.
  static std::uint8_t code(float x) {
    constexpr std::array<std::uint8_t, 16> ascending{11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};
    Index place = 0;
    while (place < 15 && (levels[ascending[std::size_t(place)]] + levels[ascending[std::size_t(place + 1)]]) / 2 < x)
      ++place;
    return ascending[std::size_t(place)];
  }
};

/// FP4; see FourBitWeight.
using Fp4Weight = FourBitWeight<Fp4Levels>;

/// y = x W^T (+ b), W of FP4; see CodedBase and FourBitWeight. Bits and speed of Nf4Base; the error is at most
/// 1 / 6 absmax.
using Fp4Base = CodedBase<Fp4Weight>;

static_assert(TrainableBasePolicy<Fp4Base>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
