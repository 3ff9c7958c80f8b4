// SPDX-License-Identifier: MIT
// ElementLoops: the loops over a row, element by element.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <concepts>
#include <limits>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

namespace detail {
template <class V>
auto scalar_type() {
  if constexpr (requires { typename V::value_type; })
    return std::type_identity<typename V::value_type>();
  else
    return std::type_identity<V>();
}
}  // namespace detail

/// The element type of a vector; a number's own type.
template <class V>
using ScalarOf = typename decltype(detail::scalar_type<V>())::type;

/// Is a number, or which lanes of a vector are, -infinity, the score of an excluded expert? False for NaN.
template <class V>
auto is_minus_infinity(const V& v) {
  return v < V(std::numeric_limits<ScalarOf<V>>::lowest());
}

/// `a` if the condition holds, else `b`: for numbers, as xsimd's select for vectors.
template <std::floating_point T>
T select(bool condition, T a, T b) {
  return condition ? a : b;
}

/// The operations of a Score on the numbers of a row, in the order of the row. An element V is a number, or a vector
/// whose lanes belong to different tokens: then every operation works per lane, and a token has the same bits as alone.
struct ElementLoops {
  template <class V>
  V largest(std::span<const V> x) const {
    using std::max;
    V most = x[0];
    for (const V& element : x.subspan(1)) most = max(most, element);
    return most;
  }

  /// The largest f(x_i)
  template <class F, class V>
  V largest_of(F f, std::span<const V> x) const {
    using std::max;
    V most = f(x[0]);
    for (const V& element : x.subspan(1)) most = max(most, f(element));
    return most;
  }

  template <class V>
  V sum(std::span<const V> x) const {
    V total = x[0];
    for (const V& element : x.subspan(1)) total += element;
    return total;
  }

  /// <x, y>
  template <class V>
  V dot(std::span<const V> x, std::span<const V> y) const {
    V total = x[0] * y[0];
    for (std::size_t i = 1; i < x.size(); ++i) total += x[i] * y[i];
    return total;
  }

  /// The sum of f(x_i, in_i...)
  template <class F, class V, class... In>
  V sum_of(F f, std::span<const V> x, std::span<In>... in) const {
    V total = f(x[0], in[0]...);
    for (std::size_t i = 1; i < x.size(); ++i) total += f(x[i], in[i]...);
    return total;
  }

  /// out_i = f(in_i...); `out` may be one of `in`
  template <class V, class F, class... In>
  void set(std::span<V> out, F f, std::span<In>... in) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = f(in[i]...);
  }

  /// out_i += f(in_i...)
  template <class V, class F, class... In>
  void add(std::span<V> out, F f, std::span<In>... in) const {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += f(in[i]...);
  }
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
