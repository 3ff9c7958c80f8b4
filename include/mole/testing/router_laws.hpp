// SPDX-License-Identifier: MIT
// The laws of routers, for every router of the library and a user's own.
#pragma once

#include "mole/router/router_policy.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/harness.hpp"
#include "mole/testing/random_matrix.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// The router's logits for features `in`, within `call`.   in [N x features] -> [N x outputs]
template <class Router>
Matrix<typename Router::Scalar> logits_of(const Router& router, const Matrix<typename Router::Scalar>& in, auto call) {
  Matrix<typename Router::Scalar> logits(in.rows(), router.outputs());
  for (auto& logit : logits.elements()) logit = 99;  // forward overwrites
  forward_router(router, in, logits.view(), call);
  return logits;
}

/// ... within a call of its own.
template <class Router>
Matrix<typename Router::Scalar> logits_of(const Router& router, const Matrix<typename Router::Scalar>& in) {
  Harness<Router> harness(router, in.rows());
  return logits_of(router, in, harness.call());
}

/// The first law that an inference router breaks, in words; "" where it keeps them.
///
///   features   columns of what it reads: I for tokens, ranks for Reads::latent
///
/// Logits are finite for random features, forward overwrites, and a token's logits do not depend on its neighbors nor
/// on its place, bit for bit, for 0, 1, 7 and 64 tokens.  Cost: about 200 calls of forward.
///
///     static_assert(mole::RouterPolicy<MyRouter>);
///     assert(mole::laws::broken_router_law(MyRouter(...), 11) == "");
template <class Router>
std::string broken_router_law(const Router& router, Index features, std::uint64_t seed = 11) {
  using T = typename Router::Scalar;
  static_assert(RouterPolicy<Router>);
  FirstFailure failure("router of " + std::to_string(features) + " features and " + std::to_string(router.outputs()) +
                       " outputs, seed " + std::to_string(seed));
  for (Index tokens : {0, 1, 7, 64}) {
    const auto in = random_matrix<T>(tokens, features, seed);
    const auto logits = logits_of(router, in);
    failure.expect(all_finite(logits.elements()), "expected finite logits of ", tokens, " tokens, found others");
    Matrix<T> over(tokens, router.outputs());
    fill(over.view(), T(-99));
    Harness<Router> harness(router, tokens);
    forward_router(router, in, over.view(), harness.call());
    failure.expect(same_bits(over, logits), "expected forward to overwrite the logits of ", tokens,
                   " tokens, found others over -99 than over 99");

    const auto order = reversed(tokens);
    failure.expect(same_bits(logits_of(router, permuted(in, order)), permuted(logits, order)),
                   "expected the logits of ", tokens,
                   " tokens in another order to be the same in that order, found other bits");
    for (Index n = 0; n < tokens && !failure.failed(); ++n) {
      const auto alone = logits_of(router, row_of(in, n));
      failure.expect(same_bits(alone.view(), logits.view().middle_rows(n, 1)), "expected token ", n, " of ", tokens,
                     " to have the logits that it has alone, found a largest difference of ",
                     largest_difference(alone, row_of(logits, n)));
    }
  }
  return failure.text();
}

/// The first law that the backward of a router breaks, in words; "" where it keeps them. Run broken_router_law() too.
///
/// Gradients of features and parameters accumulate; frozen (empty) gradients stay empty and change no other; d_in may
/// be declined. Whether gradients are derivatives is for check_gradients() on a layer.  Cost: 5 calls for 7 tokens.
///
///     static_assert(mole::TrainableRouterPolicy<MyRouter>);
///     assert(mole::laws::broken_trainable_router_law(MyRouter(...), 11) == "");
template <class Router>
std::string broken_trainable_router_law(const Router& router, Index features, std::uint64_t seed = 12) {
  using T = typename Router::Scalar;
  using Parameters = ParametersOf<Router>;
  static_assert(TrainableRouterPolicy<Router>);
  constexpr double tolerance = 100 * double(std::numeric_limits<T>::epsilon());
  constexpr Index tokens = 7;
  FirstFailure failure("backward of a router of " + std::to_string(features) + " features, 7 tokens, seed " +
                       std::to_string(seed));
  const auto in = random_matrix<T>(tokens, features, seed),
             d_logits = random_matrix<T>(tokens, router.outputs(), seed + 1);
  Harness<Router> harness(router, tokens);
  auto call = harness.call();
  logits_of(router, in, call);  // what a router keeps for its backward
  const auto backward = [&](View<T> d_in, Parameters& gradients) {
    router.backward(in, d_logits, d_in, gradients, call);
  };

  auto once = zeros_like(Parameters(parameters_of(router)));
  Matrix<T> d_in_once(tokens, features);
  backward(d_in_once, once);
  auto twice = once;
  Matrix<T> d_in_twice = d_in_once;
  backward(d_in_twice, twice);
  failure.expect(doubling_error(d_in_once, d_in_twice) < tolerance,
                 "expected d_in to accumulate: twice as large after a second call, found a difference of ",
                 doubling_error(d_in_once, d_in_twice));
  Parameters::for_each_tensor(
      [&](std::string_view name, Matrix<T>& one, Matrix<T>& two) {
        failure.expect(doubling_error(one, two) < tolerance, "expected the gradient of ", name,
                       " to accumulate: twice as large after a second call, found a difference of ",
                       doubling_error(one, two));
      },
      once, twice);

  Parameters frozen;
  Matrix<T> d_in(tokens, features);
  backward(d_in, frozen);
  failure.expect(same_bits(d_in, d_in_once), "expected the same d_in where parameters are frozen, found other bits");
  failure.expect(!any_wanted(frozen), "expected gradients of frozen parameters to stay empty, found numbers");

  auto declined = zeros_like(once);
  backward({}, declined);
  Parameters::for_each_tensor(
      [&](std::string_view name, Matrix<T>& wanted, Matrix<T>& found) {
        failure.expect(same_bits(wanted, found), "expected the same gradient of ", name,
                       " where d_in is declined, found other bits");
      },
      once, declined);
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
