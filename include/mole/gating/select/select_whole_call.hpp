// SPDX-License-Identifier: MIT
// select_whole_call(): lets a selection that looks at all tokens of a call fill a routing.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/gating/select/whole_call_select_policy.hpp"

#include <algorithm>
#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One choice of a WholeCallSelectPolicy.
struct EmittedPair {
  int token = 0, expert = 0;
};

namespace detail {
/// Takes the choices of a WholeCallSelectPolicy; excluded(n, e) is what must not serve.
template <class Excluded>
struct PairEmitter {
  const Pass& pass;
  const Excluded& excluded;
  ScratchVector<EmittedPair>& emitted;

  bool excludes(Index token, int expert) const { return excluded(token, expert); }
  void operator()(Index token, int expert) const {
    if (pass.chooses(token) && !excluded(token, expert)) emitted.push_back({int(token), expert});
  }
};
}  // namespace detail

/// Scores of `trace` -> the experts of its routing, shared experts after the chosen ones; gates are not set.
///
///   excluded(n, e): experts that must not serve   count [N] and emitted [at most the pairs of a call]: scratch
///
/// Pairs are collected, counted per token, and moved to the place of their token. A token with a forced expert gets
/// that one.
template <class Select, class T, class Excluded, class Scratch>
void select_whole_call(const Select& select, Trace<T>& trace, const Pass& pass, const Excluded& excluded,
                       std::span<int> counts, ScratchVector<EmittedPair>& emitted, Scratch& scratch) {
  const Index experts = trace.scored_experts();
  const auto count = counts.first(std::size_t(trace.tokens()));
  emitted.clear();
  for (Index n = 0; n < trace.tokens(); ++n)
    if (const int forced = pass.forced_expert(n); forced >= 0 && pass.routes(n)) emitted.push_back({int(n), forced});
  select.select_whole_call(std::as_const(trace).scores(), experts, pass,
                           detail::PairEmitter<Excluded>{pass, excluded, emitted}, scratch);
  std::ranges::fill(count, 0);
  for (const EmittedPair& pair : emitted) ++count[std::size_t(pair.token)];
  for (Index n = 0; n < trace.tokens(); ++n)
    if (pass.routes(n)) count[std::size_t(n)] += int(trace.shared());
  trace.routing.start(trace.experts(), count);
  std::ranges::fill(count, 0);
  const auto put = [&](Index n, int expert) {
    trace.routing.experts_to_fill(n)[std::size_t(count[std::size_t(n)]++)] = expert;
  };
  for (const EmittedPair& pair : emitted) put(pair.token, pair.expert);
  for (Index n = 0; n < trace.tokens(); ++n)
    for (Index s = 0; s < trace.shared() && pass.routes(n); ++s) put(n, int(experts + s));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
