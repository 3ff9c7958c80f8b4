// SPDX-License-Identifier: MIT
// What every gating must hold to.
#pragma once

#include "mole/gating/gating_policy.hpp"
#include "support/catch.hpp"
#include "support/first_failure.hpp"
#include "support/harness.hpp"
#include "support/random_matrix.hpp"

#include <limits>
#include <set>
#include <vector>

namespace laws {

/// The trace that a gating leaves for these logits.   logits [N x (E + extra)]
template <class Execution = mole::Reference, class Gating, class T>
mole::Trace<T> routed(const Gating& gating, const mole::Matrix<T>& logits, mole::Index experts,
                      const mole::Pass& pass = {}) {
  const mole::Index tokens = logits.rows(), pairs = gating.max_pairs(tokens, experts);
  mole::Trace<T> trace({.tokens = tokens,
                        .pairs = pairs,
                        .experts = experts,
                        .columns = gating.columns(experts),
                        .shared = mole::shared_experts(gating)});
  trace.start(tokens, pass);
  for (mole::Index n = 0; n < tokens; ++n)
    std::copy_n(logits.view().row_data(n), logits.cols(), trace.logits().row_data(n));
  support::Harness<Gating, Execution> harness(gating, tokens, pairs, pass);
  gating.choose(trace, harness.call());
  trace.start_d_gate();
  return trace;
}

namespace detail {
/// The routing as (expert, gate) of each token, by expert.
template <class T>
std::vector<std::vector<std::pair<int, T>>> choices(const mole::Trace<T>& trace) {
  std::vector<std::vector<std::pair<int, T>>> all;
  for (mole::Index n = 0; n < trace.tokens(); ++n) {
    auto& token = all.emplace_back();
    for (mole::Index p = trace.routing.first_pair(n); p < trace.routing.first_pair(n + 1); ++p)
      token.emplace_back(trace.routing.expert(p), trace.routing.gate(p));
    std::sort(token.begin(), token.end());
  }
  return all;
}

template <class T>
void check_routing(const mole::Trace<T>& trace, mole::Index most) {
  const auto& routing = trace.routing;
  REQUIRE(routing.finished());
  CHECK(routing.tokens() == trace.tokens());
  CHECK(routing.pairs() <= most);
  CHECK(support::all_finite(routing.gates()));
  support::FirstFailure failure;
  for (mole::Index n = 0; n < trace.tokens(); ++n) {
    const auto experts = routing.experts_of(n);
    const std::set<int> distinct(experts.begin(), experts.end());
    failure.expect(distinct.size() == experts.size(), "token ", n, " has an expert twice");
    for (int e : experts)
      failure.expect(e >= 0 && e < trace.experts(), "token ", n, " has expert ", e, " of ", trace.experts());
  }
  CHECK(failure.text() == "");
}
}  // namespace detail

/// For gatings that look at each token alone, which all but capacity and expert choice are. Of experts that cannot be
/// told apart they choose the first, or those `of_equals`.
template <class T, class Execution = mole::Reference, class Gating>
void check_gating(const Gating& gating, mole::Index experts, const std::vector<int>& of_equals = {}) {
  static_assert(mole::TrainableGatingPolicy<Gating, T>);
  gating.check(experts);
  const mole::Index columns = gating.columns(experts);
  SECTION("a token's choice depends on no other token") {
    for (mole::Index tokens : {0, 1, 7, 64, 130}) {
      INFO("tokens " << tokens << ", experts " << experts);
      const auto logits = support::random_matrix<T>(tokens, columns, 21, 3);
      const auto trace = routed<Execution>(gating, logits, experts);
      detail::check_routing(trace, gating.max_pairs(tokens, experts));
      CHECK(trace.nan_tokens == 0);

      const auto order = support::reversed(tokens);
      const auto turned = detail::choices(routed<Execution>(gating, support::permuted(logits, order), experts));
      const auto straight = detail::choices(trace);
      support::FirstFailure failure;
      for (mole::Index n = 0; n < tokens; ++n) {
        failure.expect(turned[std::size_t(n)] == straight[std::size_t(order[std::size_t(n)])], "turned, token ", n);
        mole::Matrix<T> alone(1, columns);
        std::copy_n(logits.view().row_data(n), columns, alone.data());
        const auto choice = detail::choices(routed<Execution>(gating, alone, experts))[0];
        failure.expect(choice == straight[std::size_t(n)], "alone, token ", n);
      }
      CHECK(failure.text() == "");
    }
  }
  SECTION("logits that cannot be told apart go to the lower indices") {
    const auto trace = routed<Execution>(gating, mole::Matrix<T>(3, columns), experts);
    for (mole::Index n = 0; n < 3; ++n) {
      const auto chosen = trace.routing.experts_of(n);
      if (!of_equals.empty()) CHECK(std::vector<int>(chosen.begin(), chosen.end()) == of_equals);
      for (std::size_t j = 0; of_equals.empty() && j < chosen.size(); ++j) CHECK(chosen[j] == int(j));
    }
  }
  SECTION("huge and infinite logits never give NaN") {
    const T infinity = std::numeric_limits<T>::infinity();
    for (T value : {T(1e4), T(-1e4), -infinity}) {
      mole::Matrix<T> logits = support::random_matrix<T>(4, columns, 22);
      for (mole::Index c = 0; c < experts; ++c) logits(0, c) = value;  // all of them
      logits(1, 0) = value;                                            // the first
      logits(2, experts - 1) = value;                                  // the last
      detail::check_routing(routed<Execution>(gating, logits, experts), gating.max_pairs(4, experts));
    }
  }
  SECTION("a NaN is reported") {
    mole::Matrix<T> logits(3, columns);
    logits(1, 0) = std::numeric_limits<T>::quiet_NaN();
    CHECK(routed<Execution>(gating, logits, experts).nan_tokens == 1);
  }
}

}  // namespace laws
