// SPDX-License-Identifier: MIT
// The laws of gatings, for every gating of the library and a user's own.
#pragma once

#include "mole/gating/gating_policy.hpp"
#include "mole/testing/first_failure.hpp"
#include "mole/testing/harness.hpp"
#include "mole/testing/random_matrix.hpp"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole::laws {

/// The trace that a gating leaves for these logits, in a call of its own.   logits [N x columns(E)]
template <class Execution = Reference, class Gating, class T>
Trace<T> routed(const Gating& gating, const Matrix<T>& logits, Index experts, const Pass& pass = {}) {
  const Index tokens = logits.rows();
  const CallSize size{.tokens = tokens,
                      .pairs = gating.max_pairs(tokens, experts),
                      .experts = experts,
                      .columns = gating.columns(experts),
                      .shared = shared_experts(gating)};
  Trace<T> trace(size);
  trace.start(tokens, pass);
  for (Index n = 0; n < tokens; ++n) std::copy_n(logits.view().row_data(n), logits.cols(), trace.logits().row_data(n));
  Harness<Gating, Execution> harness(gating, size, pass);
  gating.choose(trace, harness.call());
  trace.start_d_gate();
  return trace;
}

/// The routing as (expert, gate) of each token, by expert.
template <class T>
std::vector<std::vector<std::pair<int, T>>> choices(const Trace<T>& trace) {
  std::vector<std::vector<std::pair<int, T>>> all;
  for (Index n = 0; n < trace.tokens(); ++n) {
    auto& token = all.emplace_back();
    for (Index p = trace.routing.first_pair(n); p < trace.routing.first_pair(n + 1); ++p)
      token.emplace_back(trace.routing.expert(p), trace.routing.gate(p));
    std::sort(token.begin(), token.end());
  }
  return all;
}

/// What a gating promises beyond the least that all of them do.
struct GatingLawOptions {
  std::vector<Index> tokens = {0, 1, 7, 64, 130};
  bool whole_call = false;          ///< a token's choice depends on the others: capacity, expert choice
  bool first_of_equals = true;      ///< of experts that cannot be told apart, the first are chosen ...
  std::vector<int> of_equals = {};  ///< ... or, where this names any, these
  std::uint64_t seed = 21;
};

namespace detail {
template <class T>
void expect_routing(FirstFailure& failure, const Trace<T>& trace, Index most, const char* logits) {
  const Routing<T>& routing = trace.routing;
  failure.expect(routing.finished(), logits, ": expected a finished routing, found an unfinished one");
  failure.expect(routing.tokens() == trace.tokens(), logits, ": expected a routing of ", trace.tokens(),
                 " tokens, found ", routing.tokens());
  failure.expect(routing.pairs() <= most, logits, ": expected at most max_pairs = ", most, " pairs, found ",
                 routing.pairs());
  failure.expect(all_finite(routing.gates()), logits, ": expected finite gates, found others among ", routing.pairs());
}

/// Each token has the choice that it has alone, and all of them in another order.
template <class Execution, class Gating, class T>
void expect_independent_tokens(FirstFailure& failure, const Gating& gating, const Matrix<T>& logits, Index experts,
                               const Trace<T>& trace) {
  const Index tokens = logits.rows();
  const auto order = reversed(tokens);
  const auto turned = choices(routed<Execution>(gating, permuted(logits, order), experts)), straight = choices(trace);
  for (Index n = 0; n < tokens && !failure.failed(); ++n) {
    failure.expect(turned[std::size_t(n)] == straight[std::size_t(order[std::size_t(n)])], "expected token ", n, " of ",
                   tokens, " to have the same experts and gates in another order of tokens, found others");
    failure.expect(choices(routed<Execution>(gating, row_of(logits, n), experts))[0] == straight[std::size_t(n)],
                   "expected token ", n, " of ", tokens,
                   " to have the experts and gates that it has alone, found others");
  }
}

/// Experts that are alike but for their logits are chosen by these, also beside a NaN: in the reverse order of experts,
/// their counterparts are. Logits are close, so that no score is 0, and apart, so that none are equal.
template <class Execution, class T, class Gating>
void expect_nan_at_any_place(FirstFailure& failure, const Gating& gating, Index experts, Index scored) {
  if (scored > 64) return;
  for (Index place : {Index(0), scored / 2, scored - 1}) {
    Matrix<T> logits(2, gating.columns(experts));
    for (Index e = 0; e < scored; ++e) {
      const T logit = e == place ? std::numeric_limits<T>::quiet_NaN()
                                 : T(e % 2 == 0 ? e / 2 : scored - 1 - e / 2) / T(scored * scored);
      logits(0, e) = logits(1, scored - 1 - e) = logit;
    }
    const auto chosen = choices(routed<Execution>(gating, logits, experts));
    std::vector<int> straight, turned;
    for (const auto& pair : chosen[0]) straight.push_back(pair.first);
    for (const auto& pair : chosen[1])
      turned.push_back(pair.first < scored ? int(scored - 1) - pair.first : pair.first);
    std::ranges::sort(turned);
    failure.expect(straight == turned, "NaN as logit ", place, " of ", scored,
                   ": expected the same experts with it as logit ", scored - 1 - place,
                   ", the others in reverse, found others");
  }
}

template <class T, class Execution, class Gating>
void expect_gating(FirstFailure& failure, const Gating& gating, Index experts, const GatingLawOptions& options) {
  const Index columns = gating.columns(experts), scored = experts - shared_experts(gating);
  for (Index tokens : options.tokens) {
    const auto logits = random_matrix<T>(tokens, columns, options.seed, 3);
    const auto trace = routed<Execution>(gating, logits, experts);
    expect_routing(failure, trace, gating.max_pairs(tokens, experts), "random logits");
    failure.expect(trace.nan_tokens == 0, "expected no token with a NaN, found ", trace.nan_tokens, " of ", tokens);
    if (failure.failed()) return;
    if (!options.whole_call) expect_independent_tokens<Execution>(failure, gating, logits, experts, trace);
  }
  if (options.first_of_equals && !options.whole_call) {
    const auto trace = routed<Execution>(gating, Matrix<T>(3, columns), experts);
    for (Index n = 0; n < 3; ++n) {
      const auto chosen = trace.routing.experts_of(n);
      const auto& named = options.of_equals;
      failure.expect(named.empty() || chosen.size() == named.size(), "equal logits: expected ", named.size(),
                     " experts for token ", n, ", found ", chosen.size());
      for (std::size_t j = 0; j < chosen.size() && !failure.failed(); ++j) {
        const int expected = named.empty() ? int(j) : named[j];
        failure.expect(chosen[j] == expected, "equal logits: expected expert ", expected, " as choice ", j,
                       " of token ", n, ", found ", chosen[j]);
      }
    }
  }
  if (options.first_of_equals && options.of_equals.empty() && !options.whole_call)
    expect_nan_at_any_place<Execution, T>(failure, gating, experts, scored);
  for (T value : {T(1e4), T(-1e4), -std::numeric_limits<T>::infinity()}) {
    Matrix<T> logits = random_matrix<T>(4, columns, options.seed + 1);
    for (Index c = 0; c < scored; ++c) logits(0, c) = value;  // all of them
    logits(1, 0) = value;                                     // the first
    logits(2, scored - 1) = value;                            // the last
    expect_routing(failure, routed<Execution>(gating, logits, experts), gating.max_pairs(4, experts),
                   "huge or infinite logits");
  }
  Matrix<T> logits(3, columns);
  logits(1, 0) = std::numeric_limits<T>::quiet_NaN();
  const Index found = routed<Execution>(gating, logits, experts).nan_tokens;
  failure.expect(found == 1, "expected 1 token of 3 to be counted as one with a NaN, found ", found);
}
}  // namespace detail

/// The first law that a gating breaks, in words; "" where it keeps them.
///
/// Every routing is finished, of at most max_pairs() pairs, with distinct valid experts and finite gates, for random
/// logits, and for those of which some are huge or -infinity; a token with a NaN among its logits is counted. Unless
/// options.whole_call, a token's choice depends on no other token; of equal logits the first are chosen, and where this
/// is so, the place of a NaN makes no difference.
/// Throws what gating.check(experts) throws.  Cost: about 400 calls of choose().
///
///     static_assert(mole::TrainableGatingPolicy<MyGating, float>);
///     assert((mole::laws::broken_gating_law<float>(my_gating, 8) == ""));
template <class T, class Execution = Reference, class Gating>
std::string broken_gating_law(const Gating& gating, Index experts, const GatingLawOptions& options = {}) {
  static_assert(TrainableGatingPolicy<Gating, T>);
  gating.check(experts);
  FirstFailure failure("gating of " + std::to_string(experts) + " experts, seed " + std::to_string(options.seed));
#ifdef __cpp_exceptions
  try {
    detail::expect_gating<T, Execution>(failure, gating, experts, options);
  } catch (const Error& error) {  // of more pairs than max_pairs(), say
    failure.expect(false, "expected no Error, found ", error.what());
  }
#else
  detail::expect_gating<T, Execution>(failure, gating, experts, options);
#endif
  return failure.text();
}

}  // namespace mole::laws

#include "mole/core/macros_on.hpp"
