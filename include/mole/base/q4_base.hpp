// SPDX-License-Identifier: MIT
// Q4Base: a frozen base of weights of four bits at equal distances, as ggml has them.
#pragma once

#include "mole/base/four_bit_weight.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// -1, -7/8, ... 7/8. The number of the largest magnitude is the level -1, whatever its sign.
/// Source: ggml, ggml-quants.c, quantize_row_q4_0_ref; its scale d is an eighth of "absmax".
struct Q4Levels {
  static constexpr const char* name = "Q4Base";
  static constexpr bool signed_scale = true;
  static constexpr std::array<float, 16> levels = [] {
    std::array<float, 16> levels{};
    for (int code = 0; code < 16; ++code) levels[std::size_t(code)] = float(code - 8) / 8;
    return levels;
  }();

  /// The nearest level; a tie goes to the upper.
  static std::uint8_t code(float x) { return std::uint8_t(std::clamp(x * 8 + 8.5f, 0.0f, 15.0f)); }
};

/// Q4_0 in blocks of 32, which is what files have; see FourBitWeight.
using Q4Weight = FourBitWeight<Q4Levels>;

/// y = x W^T (+ b), W of four bits at equal distances; see CodedBase and FourBitWeight. Bits and speed of Nf4Base; the
/// error is at most absmax / 8.
using Q4Base = CodedBase<Q4Weight>;

static_assert(TrainableBasePolicy<Q4Base>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
