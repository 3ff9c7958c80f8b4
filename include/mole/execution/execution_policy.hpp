// SPDX-License-Identifier: MIT
// ExecutionPolicy: the contract of executions: how is it computed?
#pragma once

#include "mole/core/linear_weights.hpp"
#include "mole/core/rank/rank_terms.hpp"
#include "mole/core/view.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A view whose scalar is taken from the other arguments, so that mutable views and matrices convert.
template <class T>
using ConstView = View<const std::type_identity_t<T>>;

/// All primitives of an execution; declared, never defined: the concepts of other roles are checked against it. `+=`
/// accumulates, `=` overwrites; an empty result view is not wanted. No primitive allocates unless its execution says
/// so.
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

  /// y = x W^T + b + terms.   x [N x I], y [N x O]
  /// Terms are RankTerms (what experts add) and LinearTerm (a router's share of d_x); the result has the same bits as
  /// the map alone followed by one term after the other.
  template <class T, class... Terms>
  void linear(ConstView<T> x, const LinearWeights<T>& w, View<T> y, const Terms&... terms) const;
  /// d_x += d_y W + terms
  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const;

  /// h_p = table_e x_n for every routed pair p = (n, e).   x [N x I], table [ranks x I]: A and x, or B and d_y
  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, FactorSide side, const RankLayout<T>& layout,
                   std::span<T> h) const;
  /// result_n += table_e^T h_p, as `terms` say
  template <class T>
  void routed_up(const RankTerms<T>& terms, View<T> result) const;
  /// d_table_e += h_p x_n^T.   A d_table of fewer rows than the table is that of its last rows; the rows before them
  /// are frozen and skipped
  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const;

  /// Calls f(i) once for each i in [0, tasks), in any order, possibly concurrently.
  template <class F>
  void parallel_for(Index tasks, F&& f) const;
  int threads() const;
};

/// Satisfied by a copyable type with all primitives of ExecutionArchetype for scalars T. They compute the same numbers
/// up to rounding, and the same bits on any number of threads.
template <class X, class T>
concept ExecutionPolicy = std::copyable<X> &&
    requires(const X& execution, View<const T> in, View<T> out, std::span<const T> h, std::span<T> d_h,
             const RankLayout<T>& layout, const RankTerms<T>& ranks, const LinearTerm<T>& router,
             const LinearWeights<T>& weights, void (*task)(Index)) {
  execution.product_nt(in, in, out);
  execution.product_nn(in, in, out);
  execution.product_tn(in, in, out);
  execution.linear(in, weights, out);
  execution.linear(in, weights, out, ranks);
  execution.linear_backward(in, weights, out);
  execution.linear_backward(in, weights, out, ranks, router);
  execution.routed_down(in, in, FactorSide::down, layout, d_h);
  execution.routed_up(ranks, out);
  execution.routed_outer(h, in, FactorSide::down, layout, out);
  execution.parallel_for(Index(1), task);
  { execution.threads() } -> std::convertible_to<int>;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
