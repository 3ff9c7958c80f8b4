// SPDX-License-Identifier: MIT
// UniformColumns: uniform random numbers that are a function of their place in a matrix.
#pragma once

#include "mole/core/mix_bits.hpp"
#include "mole/kernel/vector.hpp"

#include <cstdint>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// to_c = the draw from U(-bound, bound) for column first + c of the row of this key: the bits of
/// fill_uniform_columns(), of which this is the form in vectors.   to [size], first even
///
/// A word of 64 mixed bits is two 32-bit integers, in their order in memory, so words stay in their lanes. Of floats
/// alone: where an instruction set has no product of 64-bit lanes, and for doubles, it is the plain loop.
template <class Arch, class T>
struct UniformColumns {
  void operator()(std::uint64_t row, Index first, double bound, T* to, Index size) const;
};

template <class Arch, class T>
void UniformColumns<Arch, T>::operator()(std::uint64_t row, Index first, double bound, T* to, Index size) const {
  const T factor = T(bound * 0x1p-31);
  std::uint64_t word = row + std::uint64_t(first) / 2;
  Index c = 0;
  if constexpr (std::is_same_v<T, float> && requires { mixed_integers<Arch>(word, Tag<Arch>()); }) {
    constexpr Index step = step_of<Arch, T>;
    for (; c + step <= size; c += step, word += std::uint64_t(step / 2))
      (mixed_integers<Arch>(word, Tag<Arch>()) * Vector<Arch, T>(factor)).store_unaligned(to + c);
  }
  for (; c < size; c += 2, ++word) {
    const std::uint64_t bits = mix_bits(word);
    to[c] = T(std::int32_t(bits)) * factor;
    if (c + 1 < size) to[c + 1] = T(std::int32_t(bits >> 32)) * factor;
  }
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
