// SPDX-License-Identifier: MIT
// Vector conversions: from the codes of reduced storage to vectors of floats.
#pragma once

#include "mole/kernel/pair.hpp"
#include "mole/kernel/vector.hpp"

#include <bit>
#include <cstdint>

#include "mole/core/macros_off.hpp"

// Each operation is followed by its implementation for any architecture; an instruction set may overload that.
namespace mole::kernel {

namespace detail {
/// The vector of f(0), f(1), ...: what every instruction set can do.
template <class Arch, class F>
Vector<Arch, float> vector_of(F f) {
  alignas(64) float elements[std::size_t(step_of<Arch, float>)];
  for (Index k = 0; k < step_of<Arch, float>; ++k) elements[k] = f(k);
  return Vector<Arch, float>::load_aligned(elements);
}

/// Exact for every pattern, and without a denormal operand, so that no rounding mode of the host changes it.
inline float float_of_half(std::uint16_t half) {
  const std::uint32_t magnitude = std::uint32_t(half & 0x7fffu) << 13, exponent = magnitude & 0x0f800000u;
  const float subnormal = std::bit_cast<float>(magnitude + 0x38800000u) - 0x1p-14f;
  const std::uint32_t normal = magnitude + (exponent == 0x0f800000u ? 0x70000000u : 0x38000000u);
  const std::uint32_t bits = exponent == 0 ? std::bit_cast<std::uint32_t>(subnormal) : normal;
  return std::bit_cast<float>(bits | std::uint32_t(half & 0x8000u) << 16);
}
}  // namespace detail

/// `step` 8-bit integers.
template <class Arch>
Vector<Arch, float> load_int8(const std::int8_t* from) {
  return load_int8<Arch>(from, Tag<Arch>());
}
template <class Arch>
Vector<Arch, float> load_int8(const std::int8_t* from, AnyArchitecture) {
  return detail::vector_of<Arch>([from](Index k) { return float(from[k]); });
}

/// `step` upper halves of floats.
template <class Arch>
Vector<Arch, float> load_bfloat16(const std::uint16_t* from) {
  return load_bfloat16<Arch>(from, Tag<Arch>());
}
template <class Arch>
Vector<Arch, float> load_bfloat16(const std::uint16_t* from, AnyArchitecture) {
  return detail::vector_of<Arch>([from](Index k) { return std::bit_cast<float>(std::uint32_t(from[k]) << 16); });
}

/// `step` IEEE binary16 numbers.
template <class Arch>
Vector<Arch, float> load_float16(const std::uint16_t* from) {
  return load_float16<Arch>(from, Tag<Arch>());
}
template <class Arch>
Vector<Arch, float> load_float16(const std::uint16_t* from, AnyArchitecture) {
  return detail::vector_of<Arch>([from](Index k) { return detail::float_of_half(from[k]); });
}

/// 2 `step` of 16 `levels`, chosen by as many nibbles, the higher one of a byte first, times `scale`. The first vector
/// holds the numbers of even index, the second those of odd index: this takes one table lookup per nibble, half the
/// instructions that the order in memory needs.
template <class Arch>
Pair<Arch> load_four_bits(const std::uint8_t* from, const float* levels, float scale) {
  return load_four_bits<Arch>(from, levels, scale, Tag<Arch>());
}
template <class Arch>
Pair<Arch> load_four_bits(const std::uint8_t* from, const float* levels, float scale, AnyArchitecture) {
  return {detail::vector_of<Arch>([&](Index k) { return levels[from[k] >> 4] * scale; }),
          detail::vector_of<Arch>([&](Index k) { return levels[from[k] & 15] * scale; })};
}

/// From the order in memory to even and odd indices.
template <class Arch>
Pair<Arch> deinterleave(const Pair<Arch>& pair) {
  return deinterleave(pair, Tag<Arch>());
}
template <class Arch>
Pair<Arch> deinterleave(const Pair<Arch>& pair, AnyArchitecture) {
  alignas(64) float elements[std::size_t(Pair<Arch>::size)];
  pair.store(elements);
  return {detail::vector_of<Arch>([&](Index k) { return elements[2 * k]; }),
          detail::vector_of<Arch>([&](Index k) { return elements[2 * k + 1]; })};
}

/// The inverse: first[0], second[0], first[1], ...
template <class Arch>
Pair<Arch> interleave(const Pair<Arch>& pair) {
  return interleave(pair, Tag<Arch>());
}
template <class Arch>
Pair<Arch> interleave(const Pair<Arch>& pair, AnyArchitecture) {
  alignas(64) float elements[std::size_t(Pair<Arch>::size)];
  pair.store(elements);
  const auto at = [&](Index k) { return elements[k / 2 + k % 2 * (Pair<Arch>::size / 2)]; };
  return {detail::vector_of<Arch>(at), detail::vector_of<Arch>([&](Index k) { return at(k + Pair<Arch>::size / 2); })};
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
