// SPDX-License-Identifier: MIT
// AVX: vector operations by its instructions.
#pragma once

#include "mole/kernel/architecture.hpp"

#include "mole/core/macros_off.hpp"

#if defined(__AVX__)
namespace mole::kernel {

/// Transposes a square of as many rows as a vector has elements.
template <class Arch>
void transpose(xsimd::batch<float, Arch>* rows, xsimd::avx) {
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

}  // namespace mole::kernel
#endif

#include "mole/core/macros_on.hpp"
