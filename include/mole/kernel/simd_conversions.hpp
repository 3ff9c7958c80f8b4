// SPDX-License-Identifier: MIT
// From the codes of reduced storage to vectors of floats: the only conversions that need intrinsics.
#pragma once

#include "mole/kernel/simd.hpp"

#include <array>
#include <bit>
#include <cstdint>

namespace mole::kernel {

/// Two vectors side by side: the unit in which codes are read.
template <class Arch>
struct Pair {
  static constexpr Index size = 2 * step_of<Arch, float>;

  Vector<Arch, float> first, second;

  static Pair load(const float* from) {
    return {Vector<Arch, float>::load_unaligned(from), Vector<Arch, float>::load_unaligned(from + size / 2)};
  }
  void store(float* to) const {
    first.store_unaligned(to);
    second.store_unaligned(to + size / 2);
  }
};

/// The 16 levels of NF4.   Source: QLoRA (Dettmers et al. 2023, arXiv:2305.14314), appendix E; bitsandbytes' own
/// digits.
inline constexpr std::array<float, 16> nf4_levels{
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

namespace detail {
template <class Arch>
constexpr bool is_avx512 = std::is_base_of_v<xsimd::avx512f, Arch>;
template <class Arch>
constexpr bool is_avx2 = std::is_base_of_v<xsimd::avx2, Arch>;

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
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>)
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#endif
#if defined(__AVX2__)
  if constexpr (detail::is_avx2<Arch>)
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#endif
  return detail::vector_of<Arch>([from](Index k) { return float(from[k]); });
}

/// `step` upper halves of floats.
template <class Arch>
Vector<Arch, float> load_bfloat16(const std::uint16_t* from) {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>)
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
#endif
#if defined(__AVX2__)
  if constexpr (detail::is_avx2<Arch>)
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16));
#endif
  return detail::vector_of<Arch>([from](Index k) { return std::bit_cast<float>(std::uint32_t(from[k]) << 16); });
}

/// `step` IEEE binary16 numbers.
template <class Arch>
Vector<Arch, float> load_float16(const std::uint16_t* from) {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>)
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#endif
#if defined(__AVX2__) && defined(__F16C__)
  if constexpr (detail::is_avx2<Arch>) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#endif
  return detail::vector_of<Arch>([from](Index k) { return detail::float_of_half(from[k]); });
}

/// 2 `step` NF4 numbers from as many nibbles, the higher one of a byte first, times `scale`. The first vector holds the
/// numbers of even index, the second those of odd index: a byte then needs no more than one look-up for each nibble,
/// half the instructions of the order in memory.
template <class Arch>
Pair<Arch> load_nf4(const std::uint8_t* from, float scale) {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>) {
    const __m512 levels = _mm512_mul_ps(_mm512_loadu_ps(nf4_levels.data()), _mm512_set1_ps(scale));
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    // The look-up takes the lower four bits of each index.
    return {_mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), levels), _mm512_permutexvar_ps(bytes, levels)};
  }
#endif
#if defined(__AVX2__)
  if constexpr (detail::is_avx2<Arch>) {
    const __m256 lower = _mm256_mul_ps(_mm256_loadu_ps(nf4_levels.data()), _mm256_set1_ps(scale));
    const __m256 upper = _mm256_mul_ps(_mm256_loadu_ps(nf4_levels.data() + 8), _mm256_set1_ps(scale));
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
    const auto look_up = [&](__m256i code) {  // three bits choose in each half, the fourth, moved to the sign, between
      return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lower, code), _mm256_permutevar8x32_ps(upper, code),
                              _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
    };
    return {look_up(_mm256_srli_epi32(bytes, 4)), look_up(bytes)};
  }
#endif
  return {detail::vector_of<Arch>([&](Index k) { return nf4_levels[from[k] >> 4] * scale; }),
          detail::vector_of<Arch>([&](Index k) { return nf4_levels[from[k] & 15] * scale; })};
}

/// From the order in memory to even and odd indices.
template <class Arch>
Pair<Arch> deinterleave(const Pair<Arch>& pair) {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return {_mm512_permutex2var_ps(pair.first.data, even, pair.second.data),
            _mm512_permutex2var_ps(pair.first.data, odd, pair.second.data)};
  }
#endif
#if defined(__AVX2__)
  if constexpr (detail::is_avx2<Arch>) {
    const auto in_order = [](__m256 quarters) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(quarters), 0b11'01'10'00));
    };
    return {in_order(_mm256_shuffle_ps(pair.first.data, pair.second.data, 0b10'00'10'00)),
            in_order(_mm256_shuffle_ps(pair.first.data, pair.second.data, 0b11'01'11'01))};
  }
#endif
  alignas(64) float elements[std::size_t(Pair<Arch>::size)];
  pair.store(elements);
  return {detail::vector_of<Arch>([&](Index k) { return elements[2 * k]; }),
          detail::vector_of<Arch>([&](Index k) { return elements[2 * k + 1]; })};
}

/// The way back: first[0], second[0], first[1], ...
template <class Arch>
Pair<Arch> interleave(const Pair<Arch>& pair) {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>) {
    const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i upper = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return {_mm512_permutex2var_ps(pair.first.data, lower, pair.second.data),
            _mm512_permutex2var_ps(pair.first.data, upper, pair.second.data)};
  }
#endif
#if defined(__AVX2__)
  if constexpr (detail::is_avx2<Arch>) {
    const __m256 lower = _mm256_unpacklo_ps(pair.first.data, pair.second.data);
    const __m256 upper = _mm256_unpackhi_ps(pair.first.data, pair.second.data);
    return {_mm256_permute2f128_ps(lower, upper, 0x20), _mm256_permute2f128_ps(lower, upper, 0x31)};
  }
#endif
  alignas(64) float elements[std::size_t(Pair<Arch>::size)];
  pair.store(elements);
  const auto at = [&](Index k) { return elements[k / 2 + k % 2 * (Pair<Arch>::size / 2)]; };
  return {detail::vector_of<Arch>(at), detail::vector_of<Arch>([&](Index k) { return at(k + Pair<Arch>::size / 2); })};
}

}  // namespace mole::kernel
