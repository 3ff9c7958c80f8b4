// SPDX-License-Identifier: MIT
// The laws of bases, for every base of the library and a user's own.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/harness.hpp"
#include "mole/testing/random_matrix.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// y = base(x), in a call of its own.   x [N x I] -> [N x O]
template <class Base>
Matrix<typename Base::Scalar> output_of(const Base& base, const Matrix<typename Base::Scalar>& x) {
  Harness<Base> harness(base, x.rows());
  Matrix<typename Base::Scalar> y(x.rows(), base.out());
  for (auto& element : y.elements()) element = 99;  // forward overwrites
  base.forward(x, y.view(), harness.call());
  return y;
}

/// The first law that a base breaks, in words; "" where it keeps them.
///
/// Outputs are finite for random x, forward overwrites, and permuting tokens permutes outputs, bit for bit, for 0, 1, 7
/// and 64 tokens.  Cost: 8 calls of forward.
///
///     static_assert(mole::BasePolicy<MyBase>);
///     assert(mole::laws::broken_base_law(MyBase(...)) == "");
template <class Base>
std::string broken_base_law(const Base& base, std::uint64_t seed = 41) {
  using T = typename Base::Scalar;
  static_assert(BasePolicy<Base>);
  FirstFailure failure("base from " + std::to_string(base.in()) + " to " + std::to_string(base.out()) + ", seed " +
                       std::to_string(seed));
  for (Index tokens : {0, 1, 7, 64}) {
    const auto x = random_matrix<T>(tokens, base.in(), seed);
    const auto y = output_of(base, x);
    failure.expect(all_finite(y.elements()), "expected finite outputs of ", tokens, " tokens, found others");
    Matrix<T> over(tokens, base.out());
    fill(over.view(), T(-99));
    Harness<Base> harness(base, tokens);
    base.forward(x, over.view(), harness.call());
    failure.expect(same_bits(over, y), "expected forward to overwrite the outputs of ", tokens,
                   " tokens, found others over -99 than over 99");
    const auto order = reversed(tokens);
    failure.expect(same_bits(output_of(base, permuted(x, order)), permuted(y, order)), "expected the outputs of ",
                   tokens, " tokens in another order to be the same in that order, found other bits");
  }
  return failure.text();
}

/// The first law that an affine base with a backward breaks, in words; "" where it keeps them. Run broken_base_law()
/// too.
///
/// backward is the transpose of forward, <d_y, f(x) - f(0)> = <f^T(d_y), x>, d_x accumulates, and may be declined.
/// Cost: 5 calls for 9 tokens.
///
///     static_assert(mole::TrainableBasePolicy<MyBase>);
///     assert(mole::laws::broken_affine_base_law(MyBase(...)) == "");
template <class Base>
std::string broken_affine_base_law(const Base& base, std::uint64_t seed = 42) {
  using T = typename Base::Scalar;
  static_assert(TrainableBasePolicy<Base>);
  constexpr double epsilon = double(std::numeric_limits<T>::epsilon());
  constexpr Index tokens = 9;
  FirstFailure failure("backward of a base from " + std::to_string(base.in()) + " to " + std::to_string(base.out()) +
                       ", 9 tokens, seed " + std::to_string(seed));
  const auto x = random_matrix<T>(tokens, base.in(), seed), d_y = random_matrix<T>(tokens, base.out(), seed + 1);
  const auto y = output_of(base, x), at_zero = output_of(base, Matrix<T>(tokens, base.in()));
  Harness<Base> harness(base, tokens);
  auto call = harness.call();
  ParametersOf<Base> frozen;
  Matrix<T> d_x(tokens, base.in());
  base.backward(x, d_y, d_x.view(), frozen, call);
  double left = 0, right = 0, size = 0;
  for (std::size_t i = 0; i < y.elements().size(); ++i) {
    left += double(d_y.elements()[i]) * double(y.elements()[i] - at_zero.elements()[i]);
    size += std::abs(double(d_y.elements()[i]) * double(y.elements()[i]));
  }
  for (std::size_t i = 0; i < x.elements().size(); ++i) right += double(d_x.elements()[i]) * double(x.elements()[i]);
  failure.expect(std::abs(left - right) <= 100 * epsilon * size,
                 "expected the transpose of forward, <d_x, x> = <d_y, f(x) - f(0)> = ", left, ", found ", right);

  const Matrix<T> once = d_x;
  base.backward(x, d_y, d_x.view(), frozen, call);
  failure.expect(doubling_error(once, d_x) <= 100 * epsilon,
                 "expected d_x to accumulate: twice as large after a second call, found a difference of ",
                 doubling_error(once, d_x));
  base.backward(x, d_y, View<T>{}, frozen, call);  // declined
  // No rows, of no memory: sanitizers see who points into it.
  base.forward({nullptr, 0, base.in()}, {nullptr, 0, base.out()}, call);
  base.backward({nullptr, 0, base.in()}, {nullptr, 0, base.out()}, {nullptr, 0, base.in()}, frozen, call);
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
