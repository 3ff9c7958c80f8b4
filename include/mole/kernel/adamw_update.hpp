// SPDX-License-Identifier: MIT
// AdamWUpdate: one step of AdamW on one tensor.
#pragma once

#include "mole/kernel/vector.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// m = beta1 m + rest1 g,   v = beta2 v + rest2 g^2,   p -= rate m / (sqrt(v) root_scale + epsilon) + decay p
///
///   p, g, m, v [size]
///
/// Everything is read once and written once. Compilers vectorize the plain loop only with -fno-math-errno, as every
/// std::sqrt may have to report an error: 2.2 instead of 0.6 ns per element in float.
template <class Arch, class T>
struct AdamWUpdate {
  T beta1, rest1, beta2, rest2, rate, decay, root_scale, epsilon;

  void operator()(T* p, const T* g, T* m, T* v, Index size) const;

 private:
  using Vector = kernel::Vector<Arch, T>;
  Vector updated(const Vector& p, const Vector& g, Vector& m, Vector& v) const;
};

template <class Arch, class T>
void AdamWUpdate<Arch, T>::operator()(T* p, const T* g, T* m, T* v, Index size) const {
  constexpr Index step = step_of<Arch, T>;
  const AdamWUpdate u = *this;  // a local copy: stores of the loop cannot change it
  Index i = 0;
  for (; i + step <= size; i += step) {
    Vector first = Vector::load_unaligned(m + i), second = Vector::load_unaligned(v + i);
    u.updated(Vector::load_unaligned(p + i), Vector::load_unaligned(g + i), first, second).store_unaligned(p + i);
    first.store_unaligned(m + i);
    second.store_unaligned(v + i);
  }
  if (i == size) return;
  const Index rest = size - i;
  Vector first = load_first<Arch>(m + i, rest), second = load_first<Arch>(v + i, rest);
  store_first<Arch>(u.updated(load_first<Arch>(p + i, rest), load_first<Arch>(g + i, rest), first, second), p + i,
                    rest);
  store_first<Arch>(first, m + i, rest);
  store_first<Arch>(second, v + i, rest);
}

template <class Arch, class T>
typename AdamWUpdate<Arch, T>::Vector AdamWUpdate<Arch, T>::updated(const Vector& p, const Vector& g, Vector& m,
                                                                    Vector& v) const {
  m = multiply_add(Vector(beta1), m, Vector(rest1) * g);
  v = multiply_add(Vector(beta2), v, Vector(rest2) * g * g);
  const Vector direction = Vector(rate) * m / multiply_add(sqrt(v), Vector(root_scale), Vector(epsilon));
  return p - multiply_add(Vector(decay), p, direction);
}

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
