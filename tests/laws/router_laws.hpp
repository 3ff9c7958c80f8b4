// SPDX-License-Identifier: MIT
// What every router must hold to, a user's own included.
#pragma once

#include "mole/router/router_policy.hpp"
#include "support/catch.hpp"
#include "support/harness.hpp"
#include "support/random_matrix.hpp"

namespace laws {

namespace detail {
template <class Router>
mole::Matrix<typename Router::Scalar> logits_of(const Router& router, const mole::Matrix<typename Router::Scalar>& in,
                                                auto call) {
  mole::Matrix<typename Router::Scalar> logits(in.rows(), router.outputs());
  mole::forward_router(router, in, logits.view(), call);
  return logits;
}
template <class Router>
mole::Matrix<typename Router::Scalar> logits_of(const Router& router, const mole::Matrix<typename Router::Scalar>& in) {
  support::Harness<Router> harness(router, in.rows());
  auto call = harness.call();
  return logits_of(router, in, call);
}
}  // namespace detail

/// `width`: columns of the router's features.
template <class Router>
void check_router(const Router& router, mole::Index width) {
  using T = typename Router::Scalar;
  static_assert(mole::RouterPolicy<Router>);
  for (mole::Index tokens : {0, 1, 7, 64}) {
    const auto in = support::random_matrix<T>(tokens, width, 11);
    const auto logits = detail::logits_of(router, in);
    INFO("tokens " << tokens);
    CHECK(support::all_finite(logits.elements()));

    // A token's logits do not depend on its neighbors, nor on its place.
    const auto order = support::reversed(tokens);
    CHECK(
        support::same_bits(detail::logits_of(router, support::permuted(in, order)), support::permuted(logits, order)));
    for (mole::Index n = 0; n < tokens; ++n) {
      mole::Matrix<T> alone(1, width);
      std::copy_n(in.view().row_data(n), width, alone.data());
      CHECK(support::same_bits(detail::logits_of(router, alone).view(), logits.view().middle_rows(n, 1)));
    }
  }
}

/// A router that learns: gradients accumulate, frozen ones stay empty, and d_in may be declined.
template <class Router>
void check_trainable_router(const Router& router, mole::Index width) {
  using T = typename Router::Scalar;
  static_assert(mole::TrainableRouterPolicy<Router>);
  const mole::Index tokens = 7;
  const auto in = support::random_matrix<T>(tokens, width, 12),
             d_logits = support::random_matrix<T>(tokens, router.outputs(), 13);
  support::Harness<Router> harness(router, tokens);
  auto call = harness.call();
  detail::logits_of(router, in, call);  // what a router keeps for its backward
  auto once = mole::zeros_like(mole::ParametersOf<Router>(mole::parameters_of(router)));
  mole::Matrix<T> d_in_once(tokens, width);
  router.backward(in, d_logits, d_in_once.view(), once, call);

  auto twice = once;
  mole::Matrix<T> d_in_twice = d_in_once;
  router.backward(in, d_logits, d_in_twice.view(), twice, call);
  const auto doubled = [](const mole::Matrix<T>& one, const mole::Matrix<T>& two) {
    double most = 0;
    for (std::size_t i = 0; i < one.elements().size(); ++i)
      most = std::max(most, std::abs(double(two.elements()[i] - 2 * one.elements()[i])));
    return most < 100 * double(std::numeric_limits<T>::epsilon());
  };
  CHECK(doubled(d_in_once, d_in_twice));
  mole::ParametersOf<Router>::for_each_tensor([&](std::string_view, auto& one, auto& two) { CHECK(doubled(one, two)); },
                                              once, twice);

  mole::ParametersOf<Router> frozen;
  mole::Matrix<T> d_in(tokens, width);
  router.backward(in, d_logits, d_in.view(), frozen, call);
  CHECK(support::same_bits(d_in, d_in_once));
  CHECK_FALSE(mole::any_wanted(frozen));

  auto declined = mole::zeros_like(once);
  router.backward(in, d_logits, mole::View<T>{}, declined, call);
  mole::ParametersOf<Router>::for_each_tensor(
      [](std::string_view, auto& a, auto& b) { CHECK(support::same_bits(a, b)); }, once, declined);
}

}  // namespace laws
