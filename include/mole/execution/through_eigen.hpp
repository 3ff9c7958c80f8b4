// SPDX-License-Identifier: MIT
// The execution whose products are Eigen's, and so, under EIGEN_USE_BLAS, those of any BLAS.
#pragma once

#include "mole/execution/execution_policy.hpp"

#include <Eigen/Core>

#include <type_traits>

namespace mole {

/// Dense products are one Eigen expression each, routed ones one matrix-vector product a pair. On the caller's thread,
/// unless Eigen or the BLAS below has threads of its own.
///
/// Heap: the routed primitives use none. product_nt, product_nn and product_tn let Eigen pack its operands on the heap
/// when they exceed EIGEN_STACK_ALLOCATION_LIMIT (128 KiB unless the host says otherwise), as soon as there is more
/// than one row.
class ThroughEigen {
 public:
  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    map(y).noalias() = map(x) * map(w).transpose();
  }

  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    map(d_x).noalias() += map(d_y) * map(w);
  }

  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    map(d_w).noalias() += map(d_y).transpose() * map(x);
  }

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> a, const RankLayout<T>& layout, std::span<T> h) const {
    project(
        x, a, layout, [&](Index e) { return layout.blocks.down(e); }, h);
  }

  template <class T>
  void routed_up(std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                 std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, View<T> y) const {
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      const Index e = layout.routing.expert(p);
      if (layout.ranks(p) == 0) continue;
      const T weight = scale[std::size_t(e)] * layout.routing.weight(p);
      row(y, layout.routing.token(p)).noalias() +=
          weight * (ranks(h, layout, p) * map(b.middle_rows(layout.blocks.up(e), layout.blocks.size(e))));
    }
  }

  template <class T>
  void routed_up_backward(ConstView<T> d_y, std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                          std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, std::span<T> d_h,
                          std::span<T> d_weight, View<T> d_b) const {
    const auto up = [&](Index e) { return layout.blocks.up(e); };
    project(d_y, b, layout, up, d_h);
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      const T s = scale[std::size_t(layout.routing.expert(p))];
      auto u = ranks(d_h, layout, p);
      if (!d_weight.empty()) d_weight[std::size_t(p)] += s * u.dot(ranks(h, layout, p));
      u *= s * layout.routing.weight(p);
    }
    if (d_b)
      add_gradients(
          d_y, h, layout, up,
          [&](Index p) { return scale[std::size_t(layout.routing.expert(p))] * layout.routing.weight(p); }, d_b);
  }

  template <class T>
  void routed_down_backward(ConstView<T> x, std::span<const std::type_identity_t<T>> d_h, ConstView<T> a,
                            const RankLayout<T>& layout, View<T> d_a, View<T> d_x) const {
    if (d_a)
      add_gradients(
          x, d_h, layout, [&](Index e) { return layout.blocks.down(e); }, [](Index) { return T(1); }, d_a);
    if (!d_x) return;
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      const Index e = layout.routing.expert(p);
      if (layout.ranks(p) == 0) continue;
      row(d_x, layout.routing.token(p)).noalias() +=
          ranks(d_h, layout, p) * map(a.middle_rows(layout.blocks.down(e), layout.blocks.size(e)));
    }
  }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    for (Index i = 0; i < tasks; ++i) f(i);
  }
  int threads() const { return 1; }

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

  /// h_p = table_e x_n for every pair.
  template <class T, class FirstRow>
  static void project(View<const T> x, View<const T> table, const RankLayout<T>& layout, FirstRow first_row,
                      std::span<T> h) {
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      if (layout.ranks(p) == 0) continue;
      const View<const T> rows = table.middle_rows(first_row(layout.routing.expert(p)), layout.ranks(p));
      ranks(h, layout, p).transpose().noalias() = map(rows) * row(x, layout.routing.token(p)).transpose();
    }
  }

  /// d_e += sum over the pairs of e of factor_p h_p x_n^T.
  template <class T, class FirstRow, class Factor>
  static void add_gradients(View<const T> x, std::span<const T> h, const RankLayout<T>& layout, FirstRow first_row,
                            Factor factor, View<T> d) {
    for (int p : layout.routing.by_expert()) {
      const Index first = first_row(layout.routing.expert(p));
      for (Index j = 0; j < layout.ranks(p); ++j)
        row(d, first + j) += (factor(p) * h[std::size_t(layout.first(p) + j)]) * row(x, layout.routing.token(p));
    }
  }
};

static_assert(ExecutionPolicy<ThroughEigen, float> && ExecutionPolicy<ThroughEigen, double>);

}  // namespace mole
