// SPDX-License-Identifier: MIT
// VectorLoops: the loops over a row, one vector of elements at a time.
#pragma once

#include "mole/kernel/vector.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole::kernel {

/// The loops of ElementLoops over one token's row of at least `step_of<Arch, T>` numbers; `f` gets vectors.
///
/// The last vector ends with the row and overlaps the one before it: every element is computed in the same way, so that
/// equal logits have equal scores. (Loading a partial vector through the stack cost 40 ns per row.)
template <class Arch>
struct VectorLoops {
  template <class T>
  T largest(std::span<const T> x) const {
    return largest_of([](const auto& element) { return element; }, x);
  }

  template <class F, class T>
  T largest_of(F f, std::span<const T> x) const {
    Vector<Arch, T> most = f(load(x, last(x)));
    for (Index i = 0; i < last(x); i += step_of<Arch, T>) most = max(most, Vector<Arch, T>(f(load(x, i))));
    return kernel::largest(most);
  }

  template <class T>
  T sum(std::span<const T> x) const {
    return sum_of([](const auto& element) { return element; }, x);
  }

  template <class T>
  T dot(std::span<const T> x, std::span<const T> y) const {
    return sum_of([](const auto& a, const auto& b) { return a * b; }, x, y);
  }

  template <class F, class T, class... In>
  T sum_of(F f, std::span<const T> x, std::span<In>... in) const {
    Vector<Arch, T> total(T(0));
    Index i = 0;
    for (; i < last(x); i += step_of<Arch, T>) total += f(load(x, i), load(in, i)...);
    return kernel::sum(total + last_lanes<T>(f(load(x, last(x)), load(in, last(x))...), Index(x.size()) - i));
  }

  /// Does `f` hold for every element?
  template <class T, class F>
  bool all(std::span<const T> x, F f) const {
    auto good = f(load(x, last(x)));
    for (Index i = 0; i < last(x); i += step_of<Arch, T>) good = good & f(load(x, i));
    using kernel::all;
    return all(good);
  }

  template <class T, class F, class... In>
  void set(std::span<T> out, F f, std::span<In>... in) const {
    const auto end = f(load(in, last(out))...);  // before the vectors that it overlaps are overwritten
    for (Index i = 0; i < last(out); i += step_of<Arch, T>) f(load(in, i)...).store_unaligned(&out[std::size_t(i)]);
    end.store_unaligned(&out[std::size_t(last(out))]);
  }

  template <class T, class F, class... In>
  void add(std::span<T> out, F f, std::span<In>... in) const {
    set(
        out, [&](const auto& element, const auto&... x) { return element + f(x...); }, out, in...);
  }

 private:
  template <class T>
  static Vector<Arch, std::remove_const_t<T>> load(std::span<T> x, Index i) {
    return Vector<Arch, std::remove_const_t<T>>::load_unaligned(&x[std::size_t(i)]);
  }

  /// The index at which the last vector of a row begins.
  template <class T>
  static Index last(std::span<T> x) {
    constexpr Index step = step_of<Arch, std::remove_const_t<T>>;
    MOLE_ASSERT(Index(x.size()) >= step);
    return Index(x.size()) - step;
  }

  /// `vector` with all but its last `count` lanes set to 0.
  template <class T>
  static Vector<Arch, T> last_lanes(const Vector<Arch, T>& vector, Index count) {
    constexpr Index step = step_of<Arch, T>;
    static constexpr auto zeros_then_ones = [] {
      std::array<T, std::size_t(2 * step)> table{};
      std::fill(table.begin() + step, table.end(), T(1));
      return table;
    }();
    const auto kept = Vector<Arch, T>::load_unaligned(&zeros_then_ones[std::size_t(count)]);
    return select(kept > Vector<Arch, T>(T(0)), vector, Vector<Arch, T>(T(0)));
  }
};

}  // namespace mole::kernel

#include "mole/core/macros_on.hpp"
