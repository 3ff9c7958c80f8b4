// SPDX-License-Identifier: MIT
// Either: an execution that is chosen at run time, so that what is tested under both is compiled once.
#pragma once

#include "mole/execution/execution_policy.hpp"

namespace support {

/// Of executions without an Architecture: what has vectors of its own under Simd would not take them under this.
template <class First, class Second>
class Either {
  template <class T>
  using ConstView = mole::ConstView<T>;
  template <class T>
  using View = mole::View<T>;

 public:
  static_assert(
      !requires { typename First::Architecture; } && !requires { typename Second::Architecture; });

  Either() = default;
  Either(First) {}
  Either(Second) : second_(true) {}

  template <class T>
  void product_nt(ConstView<T> x, ConstView<T> w, View<T> y) const {
    second_ ? Second{}.template product_nt<T>(x, w, y) : First{}.template product_nt<T>(x, w, y);
  }
  template <class T>
  void product_nn(ConstView<T> d_y, ConstView<T> w, View<T> d_x) const {
    second_ ? Second{}.template product_nn<T>(d_y, w, d_x) : First{}.template product_nn<T>(d_y, w, d_x);
  }
  template <class T>
  void product_tn(ConstView<T> d_y, ConstView<T> x, View<T> d_w) const {
    second_ ? Second{}.template product_tn<T>(d_y, x, d_w) : First{}.template product_tn<T>(d_y, x, d_w);
  }

  template <class T, class... Terms>
  void linear(ConstView<T> x, const mole::LinearWeights<T>& w, View<T> y, const Terms&... terms) const {
    second_ ? Second{}.template linear<T>(x, w, y, terms...) : First{}.template linear<T>(x, w, y, terms...);
  }
  template <class T, class... Terms>
  void linear_backward(ConstView<T> d_y, const mole::LinearWeights<T>& w, View<T> d_x, const Terms&... terms) const {
    second_ ? Second{}.template linear_backward<T>(d_y, w, d_x, terms...)
            : First{}.template linear_backward<T>(d_y, w, d_x, terms...);
  }

  template <class T>
  void routed_down(ConstView<T> x, ConstView<T> table, mole::FactorSide side, const mole::RankLayout<T>& layout,
                   std::span<T> h) const {
    second_ ? Second{}.template routed_down<T>(x, table, side, layout, h)
            : First{}.template routed_down<T>(x, table, side, layout, h);
  }
  template <class T>
  void routed_up(const mole::RankTerms<T>& terms, View<T> result) const {
    second_ ? Second{}.template routed_up<T>(terms, result) : First{}.template routed_up<T>(terms, result);
  }
  template <class T>
  void routed_outer(std::span<const std::type_identity_t<T>> h, ConstView<T> x, mole::FactorSide side,
                    const mole::RankLayout<T>& layout, View<T> d_table) const {
    second_ ? Second{}.template routed_outer<T>(h, x, side, layout, d_table)
            : First{}.template routed_outer<T>(h, x, side, layout, d_table);
  }

  template <class F>
  void parallel_for(mole::Index tasks, F&& f) const {
    second_ ? Second{}.parallel_for(tasks, f) : First{}.parallel_for(tasks, f);
  }
  int threads() const { return second_ ? Second{}.threads() : First{}.threads(); }

 private:
  bool second_ = false;
};

}  // namespace support
