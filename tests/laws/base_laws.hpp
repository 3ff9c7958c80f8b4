// SPDX-License-Identifier: MIT
// What every base must hold to.
#pragma once

#include "mole/base/base_policy.hpp"
#include "support/catch.hpp"
#include "support/harness.hpp"
#include "support/random_matrix.hpp"

namespace laws {

namespace detail {
template <class Base>
mole::Matrix<typename Base::Scalar> output_of(const Base& base, const mole::Matrix<typename Base::Scalar>& x) {
  support::Harness<Base> harness(base, x.rows());
  auto call = harness.call();
  mole::Matrix<typename Base::Scalar> y(x.rows(), base.out());
  for (auto& element : y.elements()) element = 99;  // forward overwrites
  base.forward(x, y.view(), call);
  return y;
}
}  // namespace detail

template <class Base>
void check_base(const Base& base) {
  using T = typename Base::Scalar;
  static_assert(mole::BasePolicy<Base>);
  for (mole::Index tokens : {0, 1, 7, 64}) {
    INFO("tokens " << tokens);
    const auto x = support::random_matrix<T>(tokens, base.in(), 41);
    const auto y = detail::output_of(base, x);
    CHECK(support::all_finite(y.elements()));
    const auto order = support::reversed(tokens);
    CHECK(support::same_bits(detail::output_of(base, support::permuted(x, order)), support::permuted(y, order)));
  }
}

/// An affine base whose backward is the transpose of its forward:  <d_y, f(x) - f(0)> = <f^T(d_y), x>.
template <class Base>
void check_affine_base(const Base& base) {
  using T = typename Base::Scalar;
  static_assert(mole::TrainableBasePolicy<Base>);
  const mole::Index tokens = 9;
  const auto x = support::random_matrix<T>(tokens, base.in(), 42),
             d_y = support::random_matrix<T>(tokens, base.out(), 43);
  const auto y = detail::output_of(base, x), at_zero = detail::output_of(base, mole::Matrix<T>(tokens, base.in()));
  support::Harness<Base> harness(base, tokens);
  auto call = harness.call();
  mole::ParametersOf<Base> frozen;
  mole::Matrix<T> d_x(tokens, base.in());
  base.backward(x, d_y, d_x.view(), frozen, call);
  double left = 0, right = 0, size = 0;
  for (std::size_t i = 0; i < y.elements().size(); ++i) {
    left += double(d_y.elements()[i]) * double(y.elements()[i] - at_zero.elements()[i]);
    size += std::abs(double(d_y.elements()[i]) * double(y.elements()[i]));
  }
  for (std::size_t i = 0; i < x.elements().size(); ++i) right += double(d_x.elements()[i]) * double(x.elements()[i]);
  CHECK(std::abs(left - right) <= 100 * double(std::numeric_limits<T>::epsilon()) * size);

  const mole::Matrix<T> once = d_x;
  base.backward(x, d_y, d_x.view(), frozen, call);
  double most = 0;
  for (std::size_t i = 0; i < once.elements().size(); ++i)
    most = std::max(most, std::abs(double(d_x.elements()[i] - 2 * once.elements()[i])));
  CHECK(most <= 100 * double(std::numeric_limits<T>::epsilon()));
  base.backward(x, d_y, mole::View<T>{}, frozen, call);  // declined
}

}  // namespace laws
