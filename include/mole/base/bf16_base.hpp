// SPDX-License-Identifier: MIT
// Bf16Base: a frozen base of bfloat16 weights, half the memory of float.
#pragma once

#include "mole/base/reduced_float_weight.hpp"
#include "mole/core/reduced_floats.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The upper half of a float: its range, 8 bits of precision.
struct Bfloat16 {
  static constexpr const char* name = "Bf16Base";
  static std::uint16_t encode(float number) { return to_bfloat16(number); }
  static float decode(std::uint16_t bits) { return from_bfloat16(bits); }
  template <class Arch>
  static kernel::Vector<Arch, float> load(const std::uint16_t* codes) {
    return kernel::load_bfloat16<Arch>(codes);
  }
};

/// y = x W^T (+ b), W of bfloat16; see CodedBase.   Relative error of a weight: 2^-9.
using Bf16Base = CodedBase<ReducedFloatWeight<Bfloat16>>;

static_assert(TrainableBasePolicy<Bf16Base>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
