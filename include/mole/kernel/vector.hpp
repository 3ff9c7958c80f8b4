// SPDX-License-Identifier: MIT
// Vector operations: what the kernels need besides xsimd's own, by the best instructions of each architecture.
#pragma once

#include "mole/kernel/architecture.hpp"
#include "mole/kernel/pair.hpp"
#include "mole/kernel/vector_avx.hpp"
#include "mole/kernel/vector_avx2.hpp"
#include "mole/kernel/vector_avx512.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

// Each operation is followed by its implementation for any architecture; an instruction set may overload that.
namespace mole::kernel {

/// The sum of the elements of `vector`: reduce_add since xsimd 9, hadd before.
template <class T, class Arch>
T sum(const xsimd::batch<T, Arch>& vector) {
  if constexpr (requires { reduce_add(vector); })
    return reduce_add(vector);
  else
    return hadd(vector);
}

/// to[j] = the sum of the elements of vectors[j], in an order that does not depend on N.
template <Index N, class T, class Arch>
void store_sums(const xsimd::batch<T, Arch>* vectors, T* to) {
  store_sums<N>(vectors, to, Tag<Arch>());
}
template <Index N, class T, class Arch>
void store_sums(const xsimd::batch<T, Arch>* vectors, T* to, AnyArchitecture) {
  for (Index j = 0; j < N; ++j) to[j] = sum(vectors[j]);
}

/// x y + z, with a single rounding if the instruction set can.
template <class T, class Arch>
xsimd::batch<T, Arch> multiply_add(const xsimd::batch<T, Arch>& x, const xsimd::batch<T, Arch>& y,
                                   const xsimd::batch<T, Arch>& z) {
  return multiply_add(x, y, z, Tag<Arch>());
}
template <class T, class Arch>
xsimd::batch<T, Arch> multiply_add(const xsimd::batch<T, Arch>& x, const xsimd::batch<T, Arch>& y,
                                   const xsimd::batch<T, Arch>& z, AnyArchitecture) {
  return fma(x, y, z);
}

/// The same vector, kept in a register: tuned for Zen, g++ 12 reads what several multiply-adds share from memory again
/// for each of them, at a third to a half of the speed.
template <class T, class Arch>
MOLE_INLINE inline xsimd::batch<T, Arch> in_register(xsimd::batch<T, Arch> vector) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
  asm("" : "+v"(vector.data));
#endif
  return vector;
}
template <class Arch>
MOLE_INLINE inline Pair<Arch> in_register(const Pair<Arch>& pair) {
  return {in_register(pair.first), in_register(pair.second)};
}

/// The first `count` elements at `from`, then zeros; reads nothing beyond them.
template <class Arch, class T>
Vector<Arch, T> load_first(const T* from, Index count) {
  return load_first<Arch>(from, count, Tag<Arch>());
}
template <class Arch, class T>
Vector<Arch, T> load_first(const T* from, Index count, AnyArchitecture) {
  alignas(64) T elements[step_of<Arch, T>] = {};
  std::copy_n(from, count, elements);
  return Vector<Arch, T>::load_aligned(elements);
}

/// Writes the first `count` elements of `vector`, and nothing beyond them.
template <class Arch, class T>
void store_first(const Vector<Arch, T>& vector, T* to, Index count) {
  store_first<Arch>(vector, to, count, Tag<Arch>());
}
template <class Arch, class T>
void store_first(const Vector<Arch, T>& vector, T* to, Index count, AnyArchitecture) {
  alignas(64) T elements[step_of<Arch, T>];
  vector.store_aligned(elements);
  std::copy_n(elements, count, to);
}

/// The largest element of `vector`, which holds no NaN. Through memory if neither xsimd (from 10 on) nor the
/// instruction set offers it, which takes a fifth of a softmax of 64 with AVX-512.
template <class T, class Arch>
T largest(const xsimd::batch<T, Arch>& vector) {
  return largest(vector, Tag<Arch>());
}
template <class T, class Arch>
T largest(const xsimd::batch<T, Arch>& vector, AnyArchitecture) {
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

/// Prefetches the cache line at `address`, which need not be readable, into L2.
inline void prefetch([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 2);
#endif
}
/// ... into L1.
inline void prefetch_near([[maybe_unused]] const void* address) {
#if defined(__GNUC__)
  __builtin_prefetch(address, 0, 3);
#endif
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
