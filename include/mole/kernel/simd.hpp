// SPDX-License-Identifier: MIT
// All that the kernels need of xsimd, from 8.1 to the newest.
#pragma once

#include "mole/core/config.hpp"

#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <type_traits>

namespace mole::kernel {

template <class Arch, class T>
using Batch = xsimd::batch<T, Arch>;

/// Elements of one vector register.
template <class Arch, class T>
constexpr Index step_of = Index(Batch<Arch, T>::size);

/// Vector registers of an instruction set: how large a tile of accumulators may be.
template <class Arch>
constexpr int registers_of =
    std::is_base_of_v<xsimd::avx512f, Arch> || std::is_base_of_v<xsimd::neon64, Arch> ? 32 : 16;

namespace detail {
// reduce_add since xsimd 9, hadd before: found by argument-dependent look-up, whichever is there.
template <class B>
auto sum_of(const B& batch) {
  if constexpr (requires { reduce_add(batch); })
    return reduce_add(batch);
  else
    return hadd(batch);
}
}  // namespace detail

/// The sum of the elements of `batch`.
template <class T, class Arch>
T sum(const xsimd::batch<T, Arch>& batch) {
  return detail::sum_of(batch);
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
  return xsimd::fma(x, y, z);
}

/// The first `count` elements at `from`, then zeros; reads nothing behind them.
template <class Arch, class T>
Batch<Arch, T> load_first(const T* from, Index count) {
  alignas(64) T elements[step_of<Arch, T>] = {};
  std::copy_n(from, count, elements);
  return Batch<Arch, T>::load_aligned(elements);
}

/// Writes the first `count` elements of `batch`, and nothing behind them.
template <class Arch, class T>
void store_first(const Batch<Arch, T>& batch, T* to, Index count) {
  alignas(64) T elements[step_of<Arch, T>];
  batch.store_aligned(elements);
  std::copy_n(elements, count, to);
}

}  // namespace mole::kernel
