// SPDX-License-Identifier: MIT
// ThroughEigen: the execution whose products are Eigen's, and so, with EIGEN_USE_BLAS, those of any BLAS.
#pragma once

#include "mole/execution/execution_policy.hpp"
#include "mole/execution/serial.hpp"

#include <algorithm>
#include <type_traits>

#include "mole/core/macros_off.hpp"

#include <Eigen/Core>

namespace mole {

/// Dense products are one Eigen expression each, routed ones one matrix-vector product per pair. Runs on the caller's
/// thread, unless Eigen or the BLAS below has threads of its own.
///
/// Heap: the routed primitives use none. product_nt, product_nn and product_tn let Eigen pack its operands on the heap
/// when they exceed EIGEN_STACK_ALLOCATION_LIMIT (128 KiB unless the host says otherwise), as soon as there is more
/// than one row.
class ThroughEigen : public Serial {
 public:
  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    if (x.size() == 0 || w.size() == 0) return fill(y, T(0));  // Eigen would offset null pointers
    map(y).noalias() = map(x) * map(w).transpose();
  }

  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    if (d_y.size() > 0 && w.size() > 0) map(d_x).noalias() += map(d_y) * map(w);
  }

  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    if (d_y.size() > 0 && x.size() > 0) map(d_w).noalias() += map(d_y).transpose() * map(x);
  }

  template <class T, class... Terms>
  void linear(ConstView<T> x, const LinearWeights<T>& w, View<T> y, const Terms&... terms) const {
    if (w.weight)
      product_nt(x, w.weight, y);
    else if (x.size() == 0)
      fill(y, T(0));
    else
      for_each_panel(w.panels,
                     [&](auto panel, Index o) { map(y).middleCols(o, panel.cols()).noalias() = map(x) * panel; });
    if (w.bias) map(y).rowwise() += map(w.bias).row(0);
    (terms.add_to(y, *this), ...);
  }

  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    if (w.weight)
      product_nn(d_y, w.weight, d_x);
    else if (d_y.size() > 0)
      for_each_panel(w.panels, [&](auto panel, Index o) {
        map(d_x).noalias() += map(d_y).middleCols(o, panel.cols()) * panel.transpose();
      });
    (terms.add_to(d_x, *this), ...);
  }

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, FactorSide side, const RankLayout<T>& layout,
                   std::span<T> h) const {
    for_each_pair(layout, table, side, [&](Index p, auto rows) {
      ranks(h, layout, p).transpose().noalias() = rows * row(x, layout.routing.token(p)).transpose();
    });
  }

  template <class T>
  void routed_up(const RankTerms<T>& terms, View<T> result) const {
    for_each_pair(terms.layout, terms.rows, terms.side, [&](Index p, auto rows) {
      row(result, terms.layout.routing.token(p)).noalias() += ranks(terms.h, terms.layout, p) * rows;
    });
  }

  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const {
    for (int p : layout.routing.by_expert()) {
      const auto share = layout.share_of_last(d_table.rows(), layout.routing.expert(p), side);
      if (share.count > 0)
        map(d_table.middle_rows(share.row, share.count)).noalias() +=
            ranks(h, layout, p).tail(share.count).transpose() * row(x, layout.routing.token(p));
    }
  }

 private:
  template <class T>
  using RowMajor = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  template <class T>
  using RowVector = Eigen::Matrix<std::remove_const_t<T>, 1, Eigen::Dynamic>;
  template <class T, class M>
  using MapOf = Eigen::Map<std::conditional_t<std::is_const_v<T>, const M, M>, Eigen::Unaligned, Eigen::OuterStride<>>;

  template <class T>
  static MapOf<T, RowMajor<T>> map(View<T> view) {
    return {view.data(), view.rows(), view.cols(), Eigen::OuterStride<>(view.stride())};
  }
  template <class T>
  static auto row(View<T> view, Index n) {
    return Eigen::Map<std::conditional_t<std::is_const_v<T>, const RowVector<T>, RowVector<T>>>(view.row_data(n),
                                                                                                view.cols());
  }
  template <class T, class U>
  static auto ranks(std::span<U> h, const RankLayout<T>& layout, Index p) {
    return Eigen::Map<std::conditional_t<std::is_const_v<U>, const RowVector<U>, RowVector<U>>>(
        h.data() + layout.first(p), layout.ranks(p));
  }

  /// Calls f(panel [I x count], o) for the rows o ... of a packed weight.
  template <class T, class F>
  static void for_each_panel(PanelView<const T> w, F f) {
    for (Index o = 0; o < w.rows(); o += w.width) {
      const Index count = std::min(w.width, w.rows() - o);
      f(map(View<const T>(w.panel(o / w.width), w.cols(), count, w.width)), o);
    }
  }

  /// Calls f(pair, rows of the table that its expert owns), expert by expert.
  template <class T, class F>
  static void for_each_pair(const RankLayout<std::remove_const_t<T>>& layout, View<T> table, FactorSide side, F f) {
    for (int p : layout.routing.by_expert())
      if (layout.ranks(p) > 0)
        f(p, map(table.middle_rows(layout.first_row(layout.routing.expert(p), side), layout.ranks(p))));
  }
};

static_assert(ExecutionPolicy<ThroughEigen, float> && ExecutionPolicy<ThroughEigen, double>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
