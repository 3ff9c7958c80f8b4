// SPDX-License-Identifier: MIT
// The contract of executions: how it is computed.
#pragma once

#include "mole/core/rank_layout.hpp"
#include "mole/core/view.hpp"

#include <concepts>

namespace mole {

/// A view whose scalar is taken from the other arguments, so that mutable views and matrices convert.
template <class T>
using ConstView = View<const std::type_identity_t<T>>;

/// Every primitive that an execution offers; declared, never defined: the concepts of other roles are checked against
/// it. `+=` accumulates, `=` overwrites; an empty result view is not wanted. No primitive allocates unless its
/// execution says so.
struct ExecutionArchetype {
  /// y = x w^T.   x [N x I], w [O x I], y [N x O]
  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const;
  /// d_x += d_y w.   d_y [N x O], w [O x I], d_x [N x I]
  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const;
  /// d_w += d_y^T x.   d_y [N x O], x [N x I], d_w [O x I]
  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const;

  /// h_p = A_e x_n for every routed pair p = (n, e).   x [N x I], a [ranks x I]
  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> a, const RankLayout<T>& layout, std::span<T> h) const;
  /// y_n += scale_e weight_p B_e^T h_p.   b [ranks x O], scale [E], y [N x O]
  template <class T>
  void routed_up(std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                 std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, View<T> y) const;
  /// With u_p = scale_e B_e d_y_n:   d_h_p = weight_p u_p,   d_weight_p += <u_p, h_p>,
  /// d_b_e += scale_e weight_p h_p d_y_n^T.   d_weight may be empty
  template <class T>
  void routed_up_backward(ConstView<T> d_y, std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                          std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, std::span<T> d_h,
                          std::span<T> d_weight, View<T> d_b) const;
  /// d_a_e += d_h_p x_n^T,   d_x_n += A_e^T d_h_p.
  template <class T>
  void routed_down_backward(ConstView<T> x, std::span<const std::type_identity_t<T>> d_h, ConstView<T> a,
                            const RankLayout<T>& layout, View<T> d_a, View<T> d_x) const;

  /// Calls f(i) once for each i in [0, tasks), in any order, perhaps at once.
  template <class F>
  void parallel_for(Index tasks, F&& f) const;
  int threads() const;
};

/// Satisfied by a copyable type with all primitives of ExecutionArchetype for scalars T, computing the same numbers up
/// to rounding and the same bits on any number of threads.
template <class X, class T>
concept ExecutionPolicy = std::copyable<X> &&
    requires(const X& execution, View<const T> in, View<T> out, std::span<const T> h, std::span<T> d_h,
             const RankLayout<T>& layout, void (*task)(Index)) {
  execution.product_nt(in, in, out);
  execution.product_nn(in, in, out);
  execution.product_tn(in, in, out);
  execution.routed_down(in, in, layout, d_h);
  execution.routed_up(h, in, h, layout, out);
  execution.routed_up_backward(in, h, in, h, layout, d_h, d_h, out);
  execution.routed_down_backward(in, h, in, layout, out, out);
  execution.parallel_for(Index(1), task);
  { execution.threads() } -> std::convertible_to<int>;
};

}  // namespace mole
