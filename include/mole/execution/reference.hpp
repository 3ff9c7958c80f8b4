// SPDX-License-Identifier: MIT
// The execution that shows what every other must compute: scalar, obvious, the oracle of the tests.
#pragma once

#include "mole/execution/execution_policy.hpp"

namespace mole {

/// Plain loops in the order of the formulae; see ExecutionArchetype for what each primitive means.
struct Reference {
  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) {
        T sum = 0;
        for (Index i = 0; i < w.cols(); ++i) sum += x(n, i) * w(o, i);
        y(n, o) = sum;
      }
  }

  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    for (Index n = 0; n < d_x.rows(); ++n)
      for (Index i = 0; i < d_x.cols(); ++i) {
        T sum = 0;
        for (Index o = 0; o < w.rows(); ++o) sum += d_y(n, o) * w(o, i);
        d_x(n, i) += sum;
      }
  }

  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index o = 0; o < d_w.rows(); ++o)
        for (Index i = 0; i < d_w.cols(); ++i) d_w(o, i) += d_y(n, o) * x(n, i);
  }

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> a, const RankLayout<T>& layout, std::span<T> h) const {
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      const Index n = layout.routing.token(p), down = layout.blocks.down(layout.routing.expert(p));
      for (Index j = 0; j < layout.ranks(p); ++j) {
        T sum = 0;
        for (Index i = 0; i < a.cols(); ++i) sum += a(down + j, i) * x(n, i);
        h[std::size_t(layout.first(p) + j)] = sum;
      }
    }
  }

  template <class T>
  void routed_up(std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                 std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, View<T> y) const {
    for (Index p = 0; p < layout.routing.pairs(); ++p) {
      const Index n = layout.routing.token(p), e = layout.routing.expert(p);
      for (Index j = 0; j < layout.ranks(p); ++j) {
        const T factor = scale[std::size_t(e)] * layout.routing.weight(p) * h[std::size_t(layout.first(p) + j)];
        for (Index o = 0; o < b.cols(); ++o) y(n, o) += factor * b(layout.blocks.up(e) + j, o);
      }
    }
  }

  template <class T>
  void routed_up_backward(ConstView<T> d_y, std::span<const std::type_identity_t<T>> h, ConstView<T> b,
                          std::span<const std::type_identity_t<T>> scale, const RankLayout<T>& layout, std::span<T> d_h,
                          std::span<T> d_weight, View<T> d_b) const {
    for (int p : layout.routing.by_expert()) {
      const Index n = layout.routing.token(p), e = layout.routing.expert(p);
      for (Index j = 0; j < layout.ranks(p); ++j) {
        const std::size_t at = std::size_t(layout.first(p) + j);
        const Index row = layout.blocks.up(e) + j;
        T u = 0;
        for (Index o = 0; o < b.cols(); ++o) u += b(row, o) * d_y(n, o);
        u *= scale[std::size_t(e)];
        d_h[at] = layout.routing.weight(p) * u;
        if (!d_weight.empty()) d_weight[std::size_t(p)] += u * h[at];
        if (!d_b) continue;
        const T factor = scale[std::size_t(e)] * layout.routing.weight(p) * h[at];
        for (Index o = 0; o < b.cols(); ++o) d_b(row, o) += factor * d_y(n, o);
      }
    }
  }

  template <class T>
  void routed_down_backward(ConstView<T> x, std::span<const std::type_identity_t<T>> d_h, ConstView<T> a,
                            const RankLayout<T>& layout, View<T> d_a, View<T> d_x) const {
    for (int p : layout.routing.by_expert()) {
      const Index n = layout.routing.token(p), down = layout.blocks.down(layout.routing.expert(p));
      for (Index j = 0; j < layout.ranks(p); ++j) {
        const T d = d_h[std::size_t(layout.first(p) + j)];
        for (Index i = 0; i < a.cols(); ++i) {
          if (d_a) d_a(down + j, i) += d * x(n, i);
          if (d_x) d_x(n, i) += d * a(down + j, i);
        }
      }
    }
  }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    for (Index i = 0; i < tasks; ++i) f(i);
  }
  int threads() const { return 1; }
};

static_assert(ExecutionPolicy<Reference, float> && ExecutionPolicy<Reference, double>);

}  // namespace mole
