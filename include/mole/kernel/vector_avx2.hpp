// SPDX-License-Identifier: MIT
// AVX2: vector operations by its instructions, beyond those of AVX.
#pragma once

#include "mole/kernel/pair.hpp"

#include <cstdint>

#include "mole/core/macros_off.hpp"

#if defined(__AVX2__)
namespace mole::kernel {

template <class Arch>
Vector<Arch, float> load_int8(const std::int8_t* from, xsimd::avx2) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
}

template <class Arch>
Vector<Arch, float> load_bfloat16(const std::uint16_t* from, xsimd::avx2) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16));
}

#if defined(__F16C__)  // every processor with AVX2 has it, but -mavx2 alone does not allow it
template <class Arch>
Vector<Arch, float> load_float16(const std::uint16_t* from, xsimd::avx2) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
#endif

template <class Arch>
Pair<Arch> load_four_bits(const std::uint8_t* from, const float* levels, float scale, xsimd::avx2) {
  const __m256 lower = _mm256_mul_ps(_mm256_loadu_ps(levels), _mm256_set1_ps(scale));
  const __m256 upper = _mm256_mul_ps(_mm256_loadu_ps(levels + 8), _mm256_set1_ps(scale));
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
  const auto look_up = [&](__m256i code) {  // three bits choose within a half, the fourth, moved to the sign, between
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lower, code), _mm256_permutevar8x32_ps(upper, code),
                            _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
  };
  return {look_up(_mm256_srli_epi32(bytes, 4)), look_up(bytes)};
}

template <class Arch>
Pair<Arch> deinterleave(const Pair<Arch>& pair, xsimd::avx2) {
  const auto in_order = [](__m256 quarters) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(quarters), 0b11'01'10'00));
  };
  return {in_order(_mm256_shuffle_ps(pair.first.data, pair.second.data, 0b10'00'10'00)),
          in_order(_mm256_shuffle_ps(pair.first.data, pair.second.data, 0b11'01'11'01))};
}

template <class Arch>
Pair<Arch> interleave(const Pair<Arch>& pair, xsimd::avx2) {
  const __m256 lower = _mm256_unpacklo_ps(pair.first.data, pair.second.data);
  const __m256 upper = _mm256_unpackhi_ps(pair.first.data, pair.second.data);
  return {_mm256_permute2f128_ps(lower, upper, 0x20), _mm256_permute2f128_ps(lower, upper, 0x31)};
}

/// The 32-bit halves, the lower one first, of the mixed bits (mix_bits) of the words `first`, first + 1, ...
template <class Arch>
xsimd::batch<float, Arch> mixed_integers(std::uint64_t first, xsimd::avx2) {
  const auto constant = [](std::uint64_t bits) { return _mm256_set1_epi64x(std::int64_t(bits)); };
  // The lower 64 bits of a product, of products of halves.
  const auto times = [&](__m256i a, std::uint64_t b) {
    const __m256i crossed = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), constant(b)),
                                             _mm256_mul_epu32(a, constant(b >> 32)));
    return _mm256_add_epi64(_mm256_mul_epu32(a, constant(b)), _mm256_slli_epi64(crossed, 32));
  };
  __m256i z = _mm256_add_epi64(constant(first + 0x9e3779b97f4a7c15ull), _mm256_setr_epi64x(0, 1, 2, 3));
  z = times(_mm256_xor_si256(z, _mm256_srli_epi64(z, 30)), 0xbf58476d1ce4e5b9ull);
  z = times(_mm256_xor_si256(z, _mm256_srli_epi64(z, 27)), 0x94d049bb133111ebull);
  return _mm256_cvtepi32_ps(_mm256_xor_si256(z, _mm256_srli_epi64(z, 31)));
}

}  // namespace mole::kernel
#endif

#include "mole/core/macros_on.hpp"
