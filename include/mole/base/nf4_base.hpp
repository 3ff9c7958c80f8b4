// SPDX-License-Identifier: MIT
// Nf4Base: a frozen base of 4-bit NormalFloat weights, the base of QLoRA.
#pragma once

#include "mole/base/four_bit_weight.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The quantiles of a normal distribution, with the digits of bitsandbytes. Code 7 is zero.
/// Source: QLoRA (Dettmers et al. 2023, arXiv:2305.14314), appendix E.
struct Nf4Levels {
  static constexpr const char* name = "Nf4Base";
  static constexpr bool signed_scale = false;
  static constexpr std::array<float, 16> levels{
      -1.0f,
      -0.6961928009986877f,
      -0.5250730514526367f,
      -0.39491748809814453f,
      -0.28444138169288635f,
      -0.18477343022823334f,
      -0.09105003625154495f,
      0.0f,
      0.07958029955625534f,
      0.16093020141124725f,
      0.24611230194568634f,
      0.33791524171829224f,
      0.44070982933044434f,
      0.5626170039176941f,
      0.7229568362236023f,
      1.0f,
  };

  /// The number of midpoints between levels that lie strictly below x.
  /// Source: bitsandbytes 95f9af30, csrc/kernels.cu, dQuantizeNF4.
  static std::uint8_t code(float x) {
    constexpr std::array<float, 15> midpoints{-0.8480964004993439f,   -0.6106329262256622f,  -0.4599952697753906f,
                                              -0.33967943489551544f,  -0.23460740596055984f, -0.13791173323988914f,
                                              -0.045525018125772476f, 0.03979014977812767f,  0.1202552504837513f,
                                              0.2035212516784668f,    0.2920137718319893f,   0.3893125355243683f,
                                              0.5016634166240692f,    0.6427869200706482f,   0.8614784181118011f};
    return std::uint8_t(std::lower_bound(midpoints.begin(), midpoints.end(), x) - midpoints.begin());
  }
};

/// NF4; see FourBitWeight.
using Nf4Weight = FourBitWeight<Nf4Levels>;

/// y = x W^T (+ b), W of NF4; see CodedBase and FourBitWeight. 4.5 bits per weight with blocks of 64, 4.127 doubly
/// quantized; the error is at most 0.152 absmax. Fastest if I is a multiple of the block.
using Nf4Base = CodedBase<Nf4Weight>;

static_assert(TrainableBasePolicy<Nf4Base>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
