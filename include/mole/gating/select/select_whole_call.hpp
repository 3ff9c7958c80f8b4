// SPDX-License-Identifier: MIT
// select_whole_call(): lets a selection that looks at all tokens of a call fill a routing.
#pragma once

#include "mole/core/trace.hpp"
#include "mole/gating/select/whole_call_select_policy.hpp"

#include <algorithm>
#include <span>
#include <utility>

namespace mole {

/// One choice of a WholeCallSelectPolicy.
struct EmittedPair {
  int token = 0, expert = 0;
};

/// Scores of `trace` -> the experts of its routing, shared experts after the chosen ones; gates are not set.
///
///   count [N] and emitted [at most the pairs of a call]: scratch
///
/// Pairs are collected, counted per token, and moved to the place of their token. A token with a forced expert gets
/// that one.
template <class Select, class T, class Scratch>
void select_whole_call(const Select& select, Trace<T>& trace, const Pass& pass, std::span<int> counts,
                       ScratchVector<EmittedPair>& emitted, Scratch& scratch) {
  const Index experts = trace.scored_experts();
  const auto count = counts.first(std::size_t(trace.tokens()));
  emitted.clear();
  for (Index n = 0; n < trace.tokens(); ++n)
    if (const int forced = pass.forced_expert(n); forced >= 0 && pass.routes(n)) emitted.push_back({int(n), forced});
  select.select_whole_call(
      std::as_const(trace).scores(), experts, pass,
      [&](Index n, int expert) {
        if (pass.forced_expert(n) < 0) emitted.push_back({int(n), expert});
      },
      scratch);
  std::ranges::fill(count, 0);
  for (const EmittedPair& pair : emitted) ++count[std::size_t(pair.token)];
  for (Index n = 0; n < trace.tokens(); ++n)
    if (pass.routes(n)) count[std::size_t(n)] += int(trace.shared());
  trace.routing.start(trace.experts(), count);
  std::ranges::fill(count, 0);
  const auto put = [&](Index n, int expert) {
    trace.routing.experts_of(n)[std::size_t(count[std::size_t(n)]++)] = expert;
  };
  for (const EmittedPair& pair : emitted) put(pair.token, pair.expert);
  for (Index n = 0; n < trace.tokens(); ++n)
    for (Index s = 0; s < trace.shared() && pass.routes(n); ++s) put(n, int(experts + s));
}

}  // namespace mole
