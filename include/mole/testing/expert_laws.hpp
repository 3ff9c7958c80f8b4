// SPDX-License-Identifier: MIT
// The laws of experts, for all experts of the library and a user's own.
#pragma once

#include "mole/expert/expert_policy.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/harness.hpp"
#include "mole/testing/random_matrix.hpp"

#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// A routing of `tokens` tokens: token n gets its counts[n % size] first experts from n on, with gates of its own.
template <class T>
Routing<T> some_routing(Index tokens, Index experts, const std::vector<Index>& counts) {
  Routing<T> routing;
  routing.start(experts);
  for (Index n = 0; n < tokens; ++n) {
    for (Index j = 0; j < std::min(experts, counts[std::size_t(n) % counts.size()]); ++j)
      routing.push(int((n + j) % experts), T(0.25) + T(j + n % 3) / 4);
    routing.end_token();
  }
  routing.finish();
  return routing;
}

/// `before` and what the routed experts add to it, in a call of its own.   x [N x I], before [N x O]
template <class Experts>
Matrix<typename Experts::Scalar> added(const Experts& experts, const Matrix<typename Experts::Scalar>& x,
                                       const Routing<typename Experts::Scalar>& routing,
                                       const Matrix<typename Experts::Scalar>& before) {
  Harness<Experts> harness(
      experts, {.tokens = x.rows(), .pairs = routing.pairs(), .experts = experts.experts(), .latent = true});
  Matrix<typename Experts::Scalar> y = before;
  experts.forward(x, {}, routing, y.view(), harness.call());
  return y;
}

/// The first law that experts break, in words; "" where they keep them. The experts should add something: give their
/// parameters random values first.
///
/// For 0, 1, 7 and 64 tokens: results are finite; a token without experts keeps its bits and one with experts does not;
/// a token's result is the one it has alone, bit for bit. A gate of 0 adds exactly nothing, also where everything goes
/// to one expert and the others have no token.  Cost: about 80 calls of forward.
///
///     static_assert(mole::ExpertPolicy<MyExperts>);
///     assert(mole::laws::broken_expert_law(my_experts) == "");
template <class Experts>
std::string broken_expert_law(const Experts& experts, std::uint64_t seed = 31) {
  using T = typename Experts::Scalar;
  static_assert(ExpertPolicy<Experts>);
  FirstFailure failure(std::to_string(experts.experts()) + " experts from " + std::to_string(experts.in()) + " to " +
                       std::to_string(experts.out()) + ", seed " + std::to_string(seed));
  for (Index tokens : {0, 1, 7, 64}) {
    const auto x = random_matrix<T>(tokens, experts.in(), seed);
    const auto before = random_matrix<T>(tokens, experts.out(), seed + 1);
    const auto routing = some_routing<T>(tokens, experts.experts(), {2, 0, 1});
    const auto y = added(experts, x, routing, before);
    failure.expect(all_finite(y.elements()), "expected finite results of ", tokens, " tokens, found others");
    for (Index n = 0; n < tokens && !failure.failed(); ++n) {
      const bool untouched = same_bits(y.view().middle_rows(n, 1), before.view().middle_rows(n, 1));
      const bool expected = routing.experts_of(n).empty();
      failure.expect(untouched == expected, "expected token ", n, " of ", tokens, " with ",
                     routing.experts_of(n).size(), expected ? " experts to keep" : " experts to change",
                     " its y, found it ", untouched ? "unchanged" : "changed");

      Routing<T> alone;
      alone.start(experts.experts());
      for (std::size_t j = 0; j < routing.experts_of(n).size(); ++j)
        alone.push(routing.experts_of(n)[j], routing.gates_of(n)[j]);
      alone.end_token();
      alone.finish();
      const auto y_alone = added(experts, row_of(x, n), alone, row_of(before, n));
      failure.expect(same_bits(y_alone.view(), y.view().middle_rows(n, 1)), "expected token ", n, " of ", tokens,
                     " to have the result that it has alone, found a largest difference of ",
                     largest_difference(y_alone, row_of(y, n)));
    }
  }

  constexpr Index tokens = 9;
  const auto x = random_matrix<T>(tokens, experts.in(), seed + 2);
  const auto before = random_matrix<T>(tokens, experts.out(), seed + 3);
  for (T gate : {T(0), T(1)}) {
    Routing<T> one;
    one.start(experts.experts());
    for (Index n = 0; n < tokens; ++n) {
      one.push(int(experts.experts() - 1), gate);
      one.end_token();
    }
    one.finish();
    const bool untouched = same_bits(added(experts, x, one, before), before);
    failure.expect(untouched == (gate == 0), "all 9 tokens to expert ", experts.experts() - 1, " with gate ", gate,
                   ": expected y to be ", gate == 0 ? "unchanged" : "changed", ", found it ",
                   untouched ? "unchanged" : "changed");
  }
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
