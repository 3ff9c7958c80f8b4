// SPDX-License-Identifier: MIT
// to_bfloat16(), to_float16() and their inverses: conversions between float and the two 16-bit formats.
#pragma once

#include <bit>
#include <cstdint>

#include "mole/core/macros_off.hpp"

namespace mole {

/// BF16 is the upper half of a float, so every pattern has an exact float.
constexpr float from_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(std::uint32_t(bits) << 16);
}

/// The nearest BF16, ties to even; infinity beyond the largest. A NaN stays NaN with its sign and upper payload.
constexpr std::uint16_t to_bfloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    const std::uint32_t upper = bits >> 16;
    return std::uint16_t((upper & 0x7fu) != 0 ? upper : upper | 0x40u);  // a payload below the cut must not become inf
  }
  return std::uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/// F16 (IEEE binary16): 5 bits of exponent, 10 of fraction; every pattern has an exact float.
constexpr float from_float16(std::uint16_t bits) {
  const std::uint32_t sign = std::uint32_t(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu, fraction = bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
  const float magnitude = float(fraction) * 0x1p-24f;  // a subnormal: exact, since a float reaches far lower
  return sign != 0 ? -magnitude : magnitude;
}

/// The nearest F16, ties to even; infinity from 65520 on, half a step beyond 65504. NaN as in to_bfloat16.
constexpr std::uint16_t to_float16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    const std::uint32_t payload = (magnitude >> 13) & 0x3ffu;
    return std::uint16_t(sign | 0x7c00u | (payload != 0 ? payload : 0x200u));
  }
  if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // 65520, half a step above the largest
  if (magnitude >= 0x38800000u) {                                      // 2^-14, the smallest normal
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return std::uint16_t(sign | ((rounded - 0x38000000u) >> 13));
  }
  if (magnitude < 0x33000000u) return std::uint16_t(sign);  // below 2^-25, half the smallest subnormal
  const std::uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t shift = 126u - (magnitude >> 23);  // 14 ... 24
  const std::uint32_t kept = fraction >> shift, rest = fraction & ((1u << shift) - 1u), half = 1u << (shift - 1u);
  return std::uint16_t(sign | (kept + ((rest > half || (rest == half && (kept & 1u) != 0)) ? 1u : 0u)));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
