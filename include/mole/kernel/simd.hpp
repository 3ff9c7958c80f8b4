// SPDX-License-Identifier: MIT
// All that the kernels need of xsimd, from 8.1 to the newest.
#pragma once

#include "mole/core/config.hpp"
#include "mole/kernel/scalar_vector.hpp"

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <type_traits>

#if defined(XSIMD_NO_SUPPORTED_ARCHITECTURE)
// For a processor that it does not know, xsimd declares its architectures, but not the vectors that are named below.
namespace xsimd {
template <class T, class Arch>
class batch;
}
#endif

namespace mole::kernel {

/// The widest instruction set that xsimd knows and the compiler's flags allow; else, one element a vector.
using DefaultArchitecture = std::conditional_t<xsimd::default_arch::supported(), xsimd::default_arch, Scalar>;

/// A vector register of an instruction set, or the one element of Scalar.
template <class Arch, class T>
using Vector = std::conditional_t<std::is_same_v<Arch, Scalar>, ScalarVector<T>, xsimd::batch<T, Arch>>;

/// Elements of one vector register.
template <class Arch, class T>
constexpr Index step_of = Index(Vector<Arch, T>::size);

/// Vector registers of an instruction set: how large a tile of accumulators may be.
template <class Arch>
constexpr int registers_of =
    std::is_base_of_v<xsimd::avx512f, Arch> || std::is_base_of_v<xsimd::neon64, Arch> ? 32 : 16;

namespace detail {
// reduce_add since xsimd 9, hadd before: found by argument-dependent look-up, whichever is there.
template <class B>
auto sum_of(const B& vector) {
  if constexpr (requires { reduce_add(vector); })
    return reduce_add(vector);
  else
    return hadd(vector);
}
}  // namespace detail

/// The sum of the elements of `vector`.
template <class T, class Arch>
T sum(const xsimd::batch<T, Arch>& vector) {
  return detail::sum_of(vector);
}

/// to[j] = the sum of the elements of vectors[j], in an order that does not depend on N.
template <Index N, class T, class Arch>
void store_sums(const xsimd::batch<T, Arch>* vectors, T* to) {
#if defined(__AVX512F__)
  if constexpr (std::is_base_of_v<xsimd::avx512f, Arch> && std::is_same_v<T, float>) {
    // Four at a time: half as many instructions as four sums.
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
    return;
  }
#endif
  for (Index j = 0; j < N; ++j) to[j] = sum(vectors[j]);
}

/// x y + z, rounded once wherever the instruction set can. xsimd 8.1 multiplies and adds in two instructions under
/// AVX-512, which compilers may or may not join: calling for the one made products 1.5 to 1.75 times faster.
template <class T, class Arch>
xsimd::batch<T, Arch> multiply_add(const xsimd::batch<T, Arch>& x, const xsimd::batch<T, Arch>& y,
                                   const xsimd::batch<T, Arch>& z) {
#if defined(__AVX512F__)
  if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
    if constexpr (std::is_same_v<T, float>) return _mm512_fmadd_ps(x.data, y.data, z.data);
    if constexpr (std::is_same_v<T, double>) return _mm512_fmadd_pd(x.data, y.data, z.data);
  }
#endif
  return fma(x, y, z);
}

/// The first `count` elements at `from`, then zeros; reads nothing behind them.
template <class Arch, class T>
Vector<Arch, T> load_first(const T* from, Index count) {
#if defined(__AVX512F__)
  if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
    const unsigned mask = (1u << count) - 1u;
    if constexpr (std::is_same_v<T, float>) return _mm512_maskz_loadu_ps(__mmask16(mask), from);
    if constexpr (std::is_same_v<T, double>) return _mm512_maskz_loadu_pd(__mmask8(mask), from);
  }
#endif
  alignas(64) T elements[step_of<Arch, T>] = {};
  std::copy_n(from, count, elements);
  return Vector<Arch, T>::load_aligned(elements);
}

/// Writes the first `count` elements of `vector`, and nothing behind them.
template <class Arch, class T>
void store_first(const Vector<Arch, T>& vector, T* to, Index count) {
#if defined(__AVX512F__)
  if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
    const unsigned mask = (1u << count) - 1u;
    if constexpr (std::is_same_v<T, float>) return _mm512_mask_storeu_ps(to, __mmask16(mask), vector.data);
    if constexpr (std::is_same_v<T, double>) return _mm512_mask_storeu_pd(to, __mmask8(mask), vector.data);
  }
#endif
  alignas(64) T elements[step_of<Arch, T>];
  vector.store_aligned(elements);
  std::copy_n(elements, count, to);
}

/// Whether transpose() has a body for squares of this kind.
template <class Arch, class T>
constexpr bool can_transpose = std::is_same_v<T, float> &&
                               (std::is_base_of_v<xsimd::avx512f, Arch> || std::is_base_of_v<xsimd::avx, Arch>);

/// Turns a square of as many rows as a vector has elements.
template <class T, class Arch>
void transpose([[maybe_unused]] xsimd::batch<T, Arch>* rows) requires can_transpose<Arch, T> {
#if defined(__AVX512F__)
  if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
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
    return;
  }
#endif
#if defined(__AVX__)
  if constexpr (std::is_base_of_v<xsimd::avx, Arch>) {
    // Lane l of quad[4 g + c] holds column 4 l + c of rows 4 g ... 4 g + 3.
    __m256 quad[8];
    for (int i = 0; i < 8; i += 4) {
      const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i].data, rows[i + 1].data));
      const __m256d b = _mm256_castps_pd(_mm256_unpacklo_ps(rows[i + 2].data, rows[i + 3].data));
      const __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i].data, rows[i + 1].data));
      const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(rows[i + 2].data, rows[i + 3].data));
      quad[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
      quad[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
      quad[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(c, d));
      quad[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(c, d));
    }
    for (int c = 0; c < 4; ++c) {
      rows[c] = _mm256_permute2f128_ps(quad[c], quad[4 + c], 0x20);
      rows[4 + c] = _mm256_permute2f128_ps(quad[c], quad[4 + c], 0x31);
    }
  }
#endif
}

/// Whether look_up() has a body for vectors of this kind.
template <class Arch, class T>
constexpr bool can_look_up = std::is_base_of_v<xsimd::avx512f, Arch>;

/// Lane l is element index[l], counted modulo their number, of `low` and `high` side by side.   index [step]
template <class T, class Arch>
xsimd::batch<T, Arch> look_up([[maybe_unused]] const xsimd::batch<T, Arch>& low,
                              [[maybe_unused]] const xsimd::batch<T, Arch>& high,
                              [[maybe_unused]] const int* index) requires can_look_up<Arch, T> {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>) return _mm512_permutex2var_ps(low.data, _mm512_loadu_si512(index), high.data);
  if constexpr (std::is_same_v<T, double>) {
    const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(index));
    return _mm512_permutex2var_pd(low.data, _mm512_cvtepi32_epi64(narrow), high.data);
  }
#endif
}

/// Asks for the line of memory at `address`, which need not be readable, into the second cache.
inline void prefetch([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 2);
#endif
}
/// ... into the first cache.
inline void prefetch_near([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 3);
#endif
}

/// The largest element of `vector`; none of them NaN. Through memory where neither xsimd (from 10 on) nor the
/// instruction set has it, which is a fifth of a softmax of 64 under AVX-512.
template <class T, class Arch>
T largest(const xsimd::batch<T, Arch>& vector) {
#if defined(__AVX512F__)
  if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
    if constexpr (std::is_same_v<T, float>) return _mm512_reduce_max_ps(vector.data);
    if constexpr (std::is_same_v<T, double>) return _mm512_reduce_max_pd(vector.data);
  }
#endif
  if constexpr (requires { reduce_max(vector); }) {
    return reduce_max(vector);
  } else {
    alignas(64) T elements[step_of<Arch, T>];
    vector.store_aligned(elements);
    for (Index half = step_of<Arch, T> / 2; half > 0; half /= 2)
      for (Index i = 0; i < half; ++i) elements[i] = std::max(elements[i], elements[i + half]);
    return elements[0];
  }
}

}  // namespace mole::kernel
