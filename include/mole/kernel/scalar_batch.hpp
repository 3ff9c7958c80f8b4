// SPDX-License-Identifier: MIT
// A vector of one element: what kernels compute with on a processor that xsimd does not know.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <cmath>

namespace mole::kernel {

/// The architecture of one element a vector: kernels are then loops over plain numbers, for any processor.
///
/// What such a loop becomes depends on the compiler's flags, which this name, unlike those of xsimd's architectures,
/// does not tell: translation units of different flags should not both use it.
struct Scalar {};

/// Whether a comparison of two vectors of one element holds.
struct ScalarMask {
  bool holds;

  friend ScalarMask operator&(ScalarMask a, ScalarMask b) { return {a.holds && b.holds}; }
};

inline bool all(ScalarMask mask) {
  return mask.holds;
}

/// Of xsimd::batch what the kernels use, for one element. Functions are found by argument-dependent look-up, as
/// xsimd's are; where a member of the same name hides them, after `using kernel::select`.
template <class T>
struct ScalarBatch {
  using value_type = T;
  using arch_type = Scalar;
  static constexpr std::size_t size = 1;

  T data;

  ScalarBatch() = default;
  ScalarBatch(T value) : data(value) {}

  static ScalarBatch load_aligned(const T* from) { return *from; }
  static ScalarBatch load_unaligned(const T* from) { return *from; }
  void store_aligned(T* to) const { *to = data; }
  void store_unaligned(T* to) const { *to = data; }

  ScalarBatch& operator+=(ScalarBatch other) { return *this = *this + other; }
  ScalarBatch operator-() const { return -data; }
  friend ScalarBatch operator+(ScalarBatch a, ScalarBatch b) { return a.data + b.data; }
  friend ScalarBatch operator-(ScalarBatch a, ScalarBatch b) { return a.data - b.data; }
  friend ScalarBatch operator*(ScalarBatch a, ScalarBatch b) { return a.data * b.data; }
  friend ScalarBatch operator/(ScalarBatch a, ScalarBatch b) { return a.data / b.data; }

  friend ScalarMask operator==(ScalarBatch a, ScalarBatch b) { return {a.data == b.data}; }
  friend ScalarMask operator<(ScalarBatch a, ScalarBatch b) { return {a.data < b.data}; }
  friend ScalarMask operator<=(ScalarBatch a, ScalarBatch b) { return {a.data <= b.data}; }
  friend ScalarMask operator>(ScalarBatch a, ScalarBatch b) { return {a.data > b.data}; }
};

template <class T>
ScalarBatch<T> select(ScalarMask mask, ScalarBatch<T> yes, ScalarBatch<T> no) {
  return mask.holds ? yes : no;
}
template <class T>
ScalarBatch<T> max(ScalarBatch<T> a, ScalarBatch<T> b) {
  return std::max(a.data, b.data);
}
template <class T>
ScalarBatch<T> abs(ScalarBatch<T> x) {
  return std::abs(x.data);
}
template <class T>
ScalarBatch<T> exp(ScalarBatch<T> x) {
  return std::exp(x.data);
}
template <class T>
ScalarBatch<T> sqrt(ScalarBatch<T> x) {
  return std::sqrt(x.data);
}

/// What simd.hpp offers for vectors.
template <class T>
T sum(ScalarBatch<T> batch) {
  return batch.data;
}
template <class T>
T largest(ScalarBatch<T> batch) {
  return batch.data;
}
template <Index N, class T>
void store_sums(const ScalarBatch<T>* batches, T* to) {
  for (Index j = 0; j < N; ++j) to[j] = batches[j].data;
}
template <class T>
ScalarBatch<T> multiply_add(ScalarBatch<T> x, ScalarBatch<T> y, ScalarBatch<T> z) {
#if defined(FP_FAST_FMA) && defined(FP_FAST_FMAF)
  return std::fma(x.data, y.data, z.data);
#else
  return x.data * y.data + z.data;  // std::fma would be a call of the library
#endif
}

}  // namespace mole::kernel
