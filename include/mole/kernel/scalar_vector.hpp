// SPDX-License-Identifier: MIT
// ScalarVector: a vector of one element, for processors that xsimd does not know.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// The architecture with one element per vector: kernels are then loops over plain numbers, for any processor.
///
/// The code for such a loop depends on the compiler's flags, but this name does not, unlike those of xsimd's
/// architectures: translation units of different flags should not both use it.
struct Scalar {};

/// Whether a comparison of two vectors of one element holds.
struct ScalarMask {
  bool holds;

  friend ScalarMask operator&(ScalarMask a, ScalarMask b) { return {a.holds && b.holds}; }
};

inline bool all(ScalarMask mask) {
  return mask.holds;
}

/// The part of xsimd::batch that the kernels use, for one element. Functions are found by argument-dependent lookup, as
/// xsimd's are; if a member of the same name hides them, after `using kernel::select`.
template <class T>
struct ScalarVector {
  using value_type = T;
  using arch_type = Scalar;
  static constexpr std::size_t size = 1;

  T data;

  ScalarVector() = default;
  ScalarVector(T value) : data(value) {}

  static ScalarVector load_aligned(const T* from) { return *from; }
  static ScalarVector load_unaligned(const T* from) { return *from; }
  void store_aligned(T* to) const { *to = data; }
  void store_unaligned(T* to) const { *to = data; }

  ScalarVector& operator+=(ScalarVector other) { return *this = *this + other; }
  ScalarVector operator-() const { return -data; }
  friend ScalarVector operator+(ScalarVector a, ScalarVector b) { return a.data + b.data; }
  friend ScalarVector operator-(ScalarVector a, ScalarVector b) { return a.data - b.data; }
  friend ScalarVector operator*(ScalarVector a, ScalarVector b) { return a.data * b.data; }
  friend ScalarVector operator/(ScalarVector a, ScalarVector b) { return a.data / b.data; }

  friend ScalarMask operator==(ScalarVector a, ScalarVector b) { return {a.data == b.data}; }
  friend ScalarMask operator<(ScalarVector a, ScalarVector b) { return {a.data < b.data}; }
  friend ScalarMask operator<=(ScalarVector a, ScalarVector b) { return {a.data <= b.data}; }
  friend ScalarMask operator>(ScalarVector a, ScalarVector b) { return {a.data > b.data}; }
};

template <class T>
ScalarVector<T> select(ScalarMask mask, ScalarVector<T> yes, ScalarVector<T> no) {
  return mask.holds ? yes : no;
}
template <class T>
ScalarVector<T> max(ScalarVector<T> a, ScalarVector<T> b) {
  return std::max(a.data, b.data);
}
template <class T>
ScalarVector<T> min(ScalarVector<T> a, ScalarVector<T> b) {
  return std::min(a.data, b.data);
}
template <class T>
ScalarVector<T> abs(ScalarVector<T> x) {
  return std::abs(x.data);
}
template <class T>
ScalarVector<T> exp(ScalarVector<T> x) {
  return std::exp(x.data);
}
template <class T>
ScalarVector<T> sqrt(ScalarVector<T> x) {
  return std::sqrt(x.data);
}

/// The functions of vector.hpp for such vectors.
template <class T>
T sum(ScalarVector<T> vector) {
  return vector.data;
}
template <class T>
ScalarVector<T> in_register(ScalarVector<T> vector) {
  return vector;
}
template <class T>
T largest(ScalarVector<T> vector) {
  return vector.data;
}
template <Index N, class T>
void store_sums(const ScalarVector<T>* vectors, T* to) {
  for (Index j = 0; j < N; ++j) to[j] = vectors[j].data;
}
template <class T>
ScalarVector<T> multiply_add(ScalarVector<T> x, ScalarVector<T> y, ScalarVector<T> z) {
#if defined(FP_FAST_FMA) && defined(FP_FAST_FMAF)
  return std::fma(x.data, y.data, z.data);
#else
  return x.data * y.data + z.data;  // std::fma would be a library call
#endif
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
