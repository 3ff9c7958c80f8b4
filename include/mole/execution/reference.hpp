// SPDX-License-Identifier: MIT
// Reference: the scalar execution that defines what every other must compute, the oracle of the tests.
#pragma once

#include "mole/execution/execution_policy.hpp"
#include "mole/execution/serial.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Plain loops in the order of the formulas; see ExecutionArchetype for what each primitive computes.
struct Reference : Serial {
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

  template <class T, class... Terms>
  void linear(ConstView<T> x, const LinearWeights<T>& w, View<T> y, const Terms&... terms) const {
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) {
        T sum = 0;
        for (Index i = 0; i < x.cols(); ++i) sum += x(n, i) * w(o, i);
        y(n, o) = w.bias ? sum + w.bias(0, o) : sum;
      }
    (terms.add_to(y, *this), ...);
  }

  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    for (Index n = 0; n < d_x.rows(); ++n)
      for (Index i = 0; i < d_x.cols(); ++i) {
        T sum = 0;
        for (Index o = 0; o < d_y.cols(); ++o) sum += d_y(n, o) * w(o, i);
        d_x(n, i) += sum;
      }
    (terms.add_to(d_x, *this), ...);
  }

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, FactorSide side, const RankLayout<T>& layout,
                   std::span<T> h) const {
    for_each_rank(layout, side, [&](Index n, Index row, std::size_t at) {
      T sum = 0;
      for (Index i = 0; i < table.cols(); ++i) sum += table(row, i) * x(n, i);
      h[at] = sum;
    });
  }

  template <class T>
  void routed_up(const RankTerms<T>& terms, View<T> result) const {
    for_each_rank(terms.layout, terms.side, [&](Index n, Index row, std::size_t at) {
      for (Index o = 0; o < result.cols(); ++o) result(n, o) += terms.h[at] * terms.rows(row, o);
    });
  }

  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, FactorSide side,
                    const RankLayout<T>& layout, View<T> d_table) const {
    const Index frozen = layout.rows(side) - d_table.rows();
    for_each_rank(layout, side, [&](Index n, Index row, std::size_t at) {
      if (row < frozen) return;
      for (Index i = 0; i < x.cols(); ++i) d_table(row - frozen, i) += h[at] * x(n, i);
    });
  }

 private:
  /// Calls f(token, row of the table, index in h), expert by expert.
  template <class T, class F>
  static void for_each_rank(const RankLayout<T>& layout, FactorSide side, F f) {
    for (int p : layout.routing.by_expert())
      for (Index j = 0; j < layout.ranks(p); ++j)
        f(layout.routing.token(p), layout.first_row(layout.routing.expert(p), side) + j,
          std::size_t(layout.first(p) + j));
  }
};

static_assert(ExecutionPolicy<Reference, float> && ExecutionPolicy<Reference, double>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
