// SPDX-License-Identifier: MIT
// What every kind of experts must hold to.
#pragma once

#include "mole/expert/expert_policy.hpp"
#include "support/catch.hpp"
#include "support/harness.hpp"
#include "support/random_matrix.hpp"

namespace laws {

/// A routing of `tokens` tokens: token n gets its `counts[n % size]` first experts from n on, with weights of its own.
template <class T>
mole::Routing<T> some_routing(mole::Index tokens, mole::Index experts, const std::vector<mole::Index>& counts) {
  mole::Routing<T> routing;
  routing.start(experts);
  for (mole::Index n = 0; n < tokens; ++n) {
    for (mole::Index j = 0; j < std::min(experts, counts[std::size_t(n) % counts.size()]); ++j)
      routing.push(int((n + j) % experts), T(0.25) + T(j + n % 3) / 4);
    routing.end_token();
  }
  routing.finish();
  return routing;
}

namespace detail {
template <class Experts>
mole::Matrix<typename Experts::Scalar> added(const Experts& experts, const mole::Matrix<typename Experts::Scalar>& x,
                                             const mole::Routing<typename Experts::Scalar>& routing,
                                             const mole::Matrix<typename Experts::Scalar>& before) {
  support::Harness<Experts> harness(experts, x.rows(), routing.pairs());
  auto call = harness.call();
  mole::Matrix<typename Experts::Scalar> y = before;
  experts.forward(x, {}, routing, y.view(), call);
  return y;
}
}  // namespace detail

/// `experts` should add something: give its parameters random values first.
template <class Experts>
void check_experts(const Experts& experts) {
  using T = typename Experts::Scalar;
  static_assert(mole::ExpertPolicy<Experts>);
  for (mole::Index tokens : {0, 1, 7, 64}) {
    INFO("tokens " << tokens);
    const auto x = support::random_matrix<T>(tokens, experts.in(), 31);
    const auto before = support::random_matrix<T>(tokens, experts.out(), 32);
    const auto routing = some_routing<T>(tokens, experts.experts(), {2, 0, 1});
    const auto y = detail::added(experts, x, routing, before);
    CHECK(support::all_finite(y.elements()));
    for (mole::Index n = 0; n < tokens; ++n) {
      const bool untouched = support::same_bits(y.view().middle_rows(n, 1), before.view().middle_rows(n, 1));
      CHECK(untouched == routing.experts_of(n).empty());
    }

    // A token's result does not depend on its neighbors.
    for (mole::Index n = 0; n < tokens; ++n) {
      mole::Matrix<T> x_n(1, experts.in()), before_n(1, experts.out());
      std::copy_n(x.view().row_data(n), experts.in(), x_n.data());
      std::copy_n(before.view().row_data(n), experts.out(), before_n.data());
      mole::Routing<T> alone;
      alone.start(experts.experts());
      for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j)
        alone.push(routing.experts_of(n)[j], routing.gates_of(n)[j]);
      alone.end_token();
      alone.finish();
      CHECK(support::same_bits(detail::added(experts, x_n, alone, before_n).view(), y.view().middle_rows(n, 1)));
    }
  }

  SECTION("a weight of 0 adds exactly nothing, and everything goes to one expert") {
    const mole::Index tokens = 9;
    const auto x = support::random_matrix<T>(tokens, experts.in(), 33);
    const auto before = support::random_matrix<T>(tokens, experts.out(), 34);
    for (T weight : {T(0), T(1)}) {
      mole::Routing<T> one;
      one.start(experts.experts());
      for (mole::Index n = 0; n < tokens; ++n) {
        one.push(int(experts.experts() - 1), weight);
        one.end_token();
      }
      one.finish();
      CHECK(support::same_bits(detail::added(experts, x, one, before), before) == (weight == 0));
    }
  }
}

}  // namespace laws
