// SPDX-License-Identifier: MIT
// HalfBase: a frozen base of IEEE half-precision weights, half the memory of float.
#pragma once

#include "mole/base/reduced_float_weight.hpp"
#include "mole/core/reduced_floats.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// IEEE binary16: 11 bits of precision, up to 65504.
struct Half {
  static constexpr const char* name = "HalfBase";
  static std::uint16_t encode(float number) { return to_float16(number); }
  static float decode(std::uint16_t bits) { return from_float16(bits); }
  template <class Arch>
  static kernel::Vector<Arch, float> load(const std::uint16_t* codes) {
    return kernel::load_float16<Arch>(codes);
  }
};

/// y = x W^T (+ b), W of binary16; see CodedBase.   Relative error of a weight: 2^-12; below 2^-14, absolute 2^-25.
using HalfBase = CodedBase<ReducedFloatWeight<Half>>;

static_assert(TrainableBasePolicy<HalfBase>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
