// SPDX-License-Identifier: MIT
// empty_trace(), random_trace(): traces made by hand; error_of_what_is_left_out(): what no loss may look at;
// error_of_addition(): what every loss must keep.
#pragma once

#include "mole/core/random.hpp"
#include "mole/core/trace.hpp"
#include "support/central_differences.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
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

/// The tokens of `trace` that count, without the others; or all of them, with one more expert that has no score and
/// serves each with gate 1.
inline Trace<double> rebuilt(const Trace<double>& trace, bool counted_alone, Index shared) {
  const Index columns = trace.scores().cols(), experts = trace.experts() + shared;
  const Index tokens = counted_alone ? trace.counted_tokens() : trace.tokens();
  Trace<double> result = empty_trace(tokens, experts, columns - experts, counted_alone ? Pass{} : trace.pass, shared);
  result.routing.start(experts);
  for (Index n = 0, m = 0; n < trace.tokens(); ++n) {
    if (counted_alone && !trace.pass.counts(n)) continue;
    copy(trace.scores().middle_rows(n, 1), result.scores().middle_rows(m, 1));
    copy(trace.logits().middle_rows(n, 1), result.logits().middle_rows(m++, 1));
    for (Index p = trace.routing.first_pair(n); p < trace.routing.first_pair(n + 1); ++p)
      result.routing.push(trace.routing.expert(p), trace.routing.gate(p));
    for (Index s = 0; s < shared; ++s) result.routing.push(int(trace.experts() + s), 1);
    result.routing.end_token();
  }
  result.routing.finish();
  result.start_d_gate();
  return result;
}

/// How far a loss and its gradients over masked tokens, unrouted ones and shared experts are from those over the rest
/// alone, of which the left-out parts have none. Infinite if the loss is 0, which would tell nothing.
template <class Loss>
double error_of_what_is_left_out(Loss&& loss, Index extra = 0) {
  const std::vector<std::uint8_t> some{1, 0, 1, 1, 0, 1, 1}, others{1, 1, 0, 1, 1, 1, 1};
  double worst = 0;
  const auto compare = [&](double found, double expected) {
    if (const double error = std::abs(found - expected); !(error <= worst)) worst = error;
  };
  for (const Pass& pass :
       {Pass{}, Pass{.token_mask = some}, Pass{.routed = some}, Pass{.token_mask = some, .routed = others}}) {
    const Trace<double> whole = random_trace(7, 5, extra, pass);
    Trace<double> trace = rebuilt(whole, false, 1), rest = rebuilt(whole, true, 0);
    const double expected = loss(rest);
    if (expected == 0) return std::numeric_limits<double>::infinity();
    compare(loss(trace), expected);
    for (Index n = 0, m = 0; n < 7; ++n) {
      const bool counts = pass.counts(n);
      for (Index c = 0; c < trace.scores().cols(); ++c) {
        compare(trace.d_scores()(n, c), counts ? rest.d_scores()(m, c) : 0);
        compare(trace.d_logits()(n, c), counts ? rest.d_logits()(m, c) : 0);
      }
      const auto d_gate = trace.routing.of_token(trace.d_gate(), n);
      for (std::size_t i = 0; i < d_gate.size(); ++i)
        compare(d_gate[i], counts && i + 1 < d_gate.size() ? rest.routing.of_token(rest.d_gate(), m)[i] : 0);
      m += counts;
    }
  }
  return worst;
}

/// How far what a loss leaves in gradients of 1 is from 1 and what it leaves in zeros. Infinite if it adds nothing.
template <class Loss>
double error_of_addition(Loss&& loss, Index extra = 0) {
  Trace<double> zeros = random_trace(7, 5, extra), ones = random_trace(7, 5, extra);
  fill(ones.d_scores(), 1);
  fill(ones.d_logits(), 1);
  std::ranges::fill(ones.d_gate(), 1.0);
  loss(zeros);
  loss(ones);
  double worst = 0, added = 0;
  const auto compare = [&](std::span<const double> once, std::span<const double> more) {
    for (std::size_t i = 0; i < once.size(); ++i) {
      worst = std::max(worst, std::abs(more[i] - (1 + once[i])));
      added = std::max(added, std::abs(once[i]));
    }
  };
  compare(elements(zeros.d_scores()), elements(ones.d_scores()));
  compare(elements(zeros.d_logits()), elements(ones.d_logits()));
  compare(zeros.d_gate(), ones.d_gate());
  return added > 0 ? worst : std::numeric_limits<double>::infinity();
}

}  // namespace mole::test
