// SPDX-License-Identifier: MIT
// AVX-512: vector operations by its instructions.
#pragma once

#include "mole/kernel/pair.hpp"

#include <algorithm>
#include <cstdint>

#include "mole/core/macros_off.hpp"

#if defined(__AVX512F__)
namespace mole::kernel {

/// Four sums at a time: half as many instructions as one sum four times.
template <Index N, class Arch>
void store_sums(const xsimd::batch<float, Arch>* vectors, float* to, xsimd::avx512f) {
  for (Index j = 0; j < N; j += 4) {
    const auto at = [&](Index i) { return j + i < N ? vectors[j + i].data : _mm512_setzero_ps(); };
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(at(0), at(1)), _mm512_unpackhi_ps(at(0), at(1)));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(at(2), at(3)), _mm512_unpackhi_ps(at(2), at(3)));
    const __m512 abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0)),
                                      _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2)));
    const __m512 halves = _mm512_add_ps(abcd, _mm512_shuffle_f32x4(abcd, abcd, _MM_SHUFFLE(1, 0, 3, 2)));
    const __m512 all = _mm512_add_ps(halves, _mm512_shuffle_f32x4(halves, halves, _MM_SHUFFLE(2, 3, 0, 1)));
    _mm512_mask_storeu_ps(to + j, __mmask16((1u << std::min<Index>(4, N - j)) - 1u), all);
  }
}

/// xsimd 8.1 multiplies and adds in two instructions, which compilers may or may not fuse: calling the fused one made
/// products 1.5 to 1.75 times faster.
template <class Arch>
xsimd::batch<float, Arch> multiply_add(const xsimd::batch<float, Arch>& x, const xsimd::batch<float, Arch>& y,
                                       const xsimd::batch<float, Arch>& z, xsimd::avx512f) {
  return _mm512_fmadd_ps(x.data, y.data, z.data);
}
template <class Arch>
xsimd::batch<double, Arch> multiply_add(const xsimd::batch<double, Arch>& x, const xsimd::batch<double, Arch>& y,
                                        const xsimd::batch<double, Arch>& z, xsimd::avx512f) {
  return _mm512_fmadd_pd(x.data, y.data, z.data);
}

template <class Arch>
Vector<Arch, float> load_first(const float* from, Index count, xsimd::avx512f) {
  const unsigned mask = (1u << count) - 1u;
  return _mm512_maskz_loadu_ps(__mmask16(mask), from);
}
template <class Arch>
Vector<Arch, double> load_first(const double* from, Index count, xsimd::avx512f) {
  const unsigned mask = (1u << count) - 1u;
  return _mm512_maskz_loadu_pd(__mmask8(mask), from);
}

template <class Arch>
void store_first(const Vector<Arch, float>& vector, float* to, Index count, xsimd::avx512f) {
  const unsigned mask = (1u << count) - 1u;
  _mm512_mask_storeu_ps(to, __mmask16(mask), vector.data);
}
template <class Arch>
void store_first(const Vector<Arch, double>& vector, double* to, Index count, xsimd::avx512f) {
  const unsigned mask = (1u << count) - 1u;
  _mm512_mask_storeu_pd(to, __mmask8(mask), vector.data);
}

template <class Arch>
float largest(const xsimd::batch<float, Arch>& vector, xsimd::avx512f) {
  return _mm512_reduce_max_ps(vector.data);
}
template <class Arch>
double largest(const xsimd::batch<double, Arch>& vector, xsimd::avx512f) {
  return _mm512_reduce_max_pd(vector.data);
}

/// Transposes a square of as many rows as a vector has elements.
template <class Arch>
void transpose(xsimd::batch<float, Arch>* rows, xsimd::avx512f) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i].data, rows[i + 1].data);
    t[i + 1] = _mm512_unpackhi_ps(rows[i].data, rows[i + 1].data);
  }
  // Lane l of quad[4 g + c] holds column 4 l + c of rows 4 g ... 4 g + 3.
  __m512 quad[16];
  for (int i = 0; i < 16; i += 4)
    for (int c = 0; c < 4; ++c) {
      const __m512d a = _mm512_castps_pd(t[i + c / 2]), b = _mm512_castps_pd(t[i + c / 2 + 2]);
      quad[i + c] = _mm512_castpd_ps(c % 2 == 0 ? _mm512_unpacklo_pd(a, b) : _mm512_unpackhi_pd(a, b));
    }
  constexpr int even = _MM_SHUFFLE(2, 0, 2, 0), odd = _MM_SHUFFLE(3, 1, 3, 1);
  for (int c = 0; c < 4; ++c) {
    const __m512 upper_even = _mm512_shuffle_f32x4(quad[c], quad[4 + c], even);
    const __m512 upper_odd = _mm512_shuffle_f32x4(quad[c], quad[4 + c], odd);
    const __m512 lower_even = _mm512_shuffle_f32x4(quad[8 + c], quad[12 + c], even);
    const __m512 lower_odd = _mm512_shuffle_f32x4(quad[8 + c], quad[12 + c], odd);
    rows[c] = _mm512_shuffle_f32x4(upper_even, lower_even, even);
    rows[4 + c] = _mm512_shuffle_f32x4(upper_odd, lower_odd, even);
    rows[8 + c] = _mm512_shuffle_f32x4(upper_even, lower_even, odd);
    rows[12 + c] = _mm512_shuffle_f32x4(upper_odd, lower_odd, odd);
  }
}

/// Lane l is element index[l], modulo their number, of the concatenation of `low` and `high`.   index [step]
template <class Arch>
xsimd::batch<float, Arch> look_up(const xsimd::batch<float, Arch>& low, const xsimd::batch<float, Arch>& high,
                                  const int* index, xsimd::avx512f) {
  return _mm512_permutex2var_ps(low.data, _mm512_loadu_si512(index), high.data);
}
template <class Arch>
xsimd::batch<double, Arch> look_up(const xsimd::batch<double, Arch>& low, const xsimd::batch<double, Arch>& high,
                                   const int* index, xsimd::avx512f) {
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
  return _mm512_permutex2var_pd(low.data, _mm512_cvtepi32_epi64(narrow), high.data);
}

template <class Arch>
Vector<Arch, float> load_int8(const std::int8_t* from, xsimd::avx512f) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

template <class Arch>
Vector<Arch, float> load_bfloat16(const std::uint16_t* from, xsimd::avx512f) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16));
}

template <class Arch>
Vector<Arch, float> load_float16(const std::uint16_t* from, xsimd::avx512f) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

template <class Arch>
Pair<Arch> load_four_bits(const std::uint8_t* from, const float* levels, float scale, xsimd::avx512f) {
  const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(levels), _mm512_set1_ps(scale));
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  // The permutation uses the lower four bits of each index.
  return {_mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), scaled), _mm512_permutexvar_ps(bytes, scaled)};
}

template <class Arch>
Pair<Arch> deinterleave(const Pair<Arch>& pair, xsimd::avx512f) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return {_mm512_permutex2var_ps(pair.first.data, even, pair.second.data),
          _mm512_permutex2var_ps(pair.first.data, odd, pair.second.data)};
}

template <class Arch>
Pair<Arch> interleave(const Pair<Arch>& pair, xsimd::avx512f) {
  const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i upper = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  return {_mm512_permutex2var_ps(pair.first.data, lower, pair.second.data),
          _mm512_permutex2var_ps(pair.first.data, upper, pair.second.data)};
}

#if defined(__AVX512DQ__)
/// The 32-bit halves, the lower one first, of the mixed bits (mix_bits) of the words `first`, first + 1, ...
template <class Arch>
xsimd::batch<float, Arch> mixed_integers(std::uint64_t first, xsimd::avx512dq) {
  const auto constant = [](std::uint64_t bits) { return _mm512_set1_epi64(std::int64_t(bits)); };
  __m512i z = _mm512_add_epi64(constant(first + 0x9e3779b97f4a7c15ull), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
  z = _mm512_mullo_epi64(_mm512_xor_si512(z, _mm512_srli_epi64(z, 30)), constant(0xbf58476d1ce4e5b9ull));
  z = _mm512_mullo_epi64(_mm512_xor_si512(z, _mm512_srli_epi64(z, 27)), constant(0x94d049bb133111ebull));
  return _mm512_cvtepi32_ps(_mm512_xor_si512(z, _mm512_srli_epi64(z, 31)));
}
#endif

}  // namespace mole::kernel
#endif

#include "mole/core/macros_on.hpp"
