// SPDX-License-Identifier: MIT
// empty_trace(), random_trace(): traces made by hand.
#pragma once

#include "mole/core/random.hpp"
#include "mole/core/trace.hpp"
#include "support/central_differences.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace mole::test {

/// A trace of `tokens` tokens with all numbers zero and nobody chosen.
inline Trace<double> empty_trace(Index tokens, Index experts, Index extra = 0, const Pass& pass = {},
                                 Index shared = 0) {
  Trace<double> trace(
      {.tokens = tokens, .pairs = tokens * experts, .experts = experts, .columns = experts + extra, .shared = shared});
  trace.start(tokens, pass);
  trace.routing.start(experts);
  for (Index n = 0; n < tokens; ++n) trace.routing.end_token();
  trace.routing.finish();
  trace.start_d_gate();
  return trace;
}

/// Replaces the routing: token n chooses chosen[n], all with `weight`.
inline void route(Trace<double>& trace, const std::vector<std::vector<int>>& chosen, double weight = 1) {
  trace.routing.start(trace.experts());
  for (const std::vector<int>& experts : chosen) {
    for (int e : experts) trace.routing.push(e, weight);
    trace.routing.end_token();
  }
  trace.routing.finish();
  trace.start_d_gate();
}

/// Random logits, positive scores that do not sum to one (so that no gradient hides behind a constraint), and one to
/// E experts per token with random weights.
inline Trace<double> random_trace(Index tokens, Index experts, Index extra = 0, const Pass& pass = {},
                                  std::uint64_t seed = 1) {
  Trace<double> trace = empty_trace(tokens, experts, extra, pass);
  Rng rng(seed);
  fill_uniform(trace.logits(), 2, rng);
  fill_uniform(trace.scores(), 0.4, rng);
  for (Index n = 0; n < tokens; ++n)
    for (double& score : trace.scores().row(n)) score += 0.5;
  trace.routing.start(experts);
  for (Index n = 0; n < tokens; ++n) {
    for (Index e = 0; e < experts; ++e)
      if (e == n % experts || rng() % 3 == 0) trace.routing.push(int(e), 0.1 + unit_interval(rng()));
    trace.routing.end_token();
  }
  trace.routing.finish();
  trace.start_d_gate();
  return trace;
}

constexpr double value_tolerance = 1e-12;

inline bool near(double found, double expected, double tolerance = value_tolerance) {
  return std::abs(found - expected) <= tolerance * std::max(1.0, std::abs(expected));
}

/// All elements of a view without padding between its rows.
template <class T>
std::span<T> elements(View<T> view) {
  return {view.data(), std::size_t(view.size())};
}

/// A copy of the gradient that a loss has just added.
template <class T>
std::vector<double> copied(std::span<T> gradient) {
  return {gradient.begin(), gradient.end()};
}

inline bool all_zero(std::span<const double> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](double x) { return x == 0; });
}

}  // namespace mole::test
