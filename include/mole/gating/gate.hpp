// SPDX-License-Identifier: MIT
// The usual gating: three small questions, one policy for each.
#pragma once

#include "mole/gating/gating_policy.hpp"
#include "mole/gating/score_policy.hpp"
#include "mole/gating/select_policy.hpp"
#include "mole/gating/weigh_policy.hpp"
#include "mole/gating/all.hpp"
#include "mole/gating/unit.hpp"

#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

namespace mole {

/// Score the logits, select from the scores, weigh the selected.
///
///   logits [N x (E + extra)] -> scores [N x (E + extra)] -> routing
///
/// The selection is a constant in backward; the weights are differentiated exactly. Tokens are independent of each
/// other. No allocation after scratch().
template <class Score, class Select, class Weigh>
class Gate {
 public:
  struct Scratch {
    std::pmr::vector<int> chosen;         // [tokens x max_chosen]
    std::pmr::vector<int> count;          // chosen experts a token
    std::pmr::vector<unsigned char> nan;  // 1 where a logit is NaN
    Index max_chosen = 0;
  };

  Gate(Score score_, Select select_, Weigh weigh_)
      : score(std::move(score_)), select(std::move(select_)), weigh(std::move(weigh_)) {}

  /// Throws Error(option) when an option of a part does not fit `experts`.
  void check(Index experts) const {
    const auto check_part = [&](const auto& part) {
      if constexpr (requires { part.check(experts); }) part.check(experts);
    };
    check_part(score);
    check_part(select);
    check_part(weigh);
  }

  Index extra() const {
    if constexpr (requires { Score::extra; }) return Score::extra;
    return 0;
  }
  Index max_pairs(Index tokens, Index experts) const { return tokens * select.max_chosen(experts); }

  Scratch scratch(const Capacity& capacity) const {
    const Index slots = capacity.tokens ? capacity.pairs / capacity.tokens : 0;
    return {std::pmr::vector<int>(std::size_t(capacity.tokens * slots), capacity.memory),
            std::pmr::vector<int>(std::size_t(capacity.tokens), capacity.memory),
            std::pmr::vector<unsigned char>(std::size_t(capacity.tokens), capacity.memory), slots};
  }

  template <class T, class C>
  void choose(Trace<T>& trace, C& call) const {
    static_assert(ScorePolicy<Score, T>, "mole: Score does not model ScorePolicy (mole/gating/score_policy.hpp)");
    static_assert(SelectPolicy<Select, T>, "mole: Select does not model SelectPolicy (mole/gating/select_policy.hpp)");
    static_assert(WeighPolicy<Weigh, T>, "mole: Weigh does not model WeighPolicy (mole/gating/weigh_policy.hpp)");
    Scratch& scratch = call.scratch;
    const View<const T> logits = std::as_const(trace).logits();
    const View<T> scores = trace.scores();
    const auto slots = [&](Index n) {
      return std::span<int>(scratch.chosen)
          .subspan(std::size_t(n * scratch.max_chosen), std::size_t(scratch.max_chosen));
    };

    for_each_token(call, trace.tokens(), [&](Index n) {
      score.forward(logits.row(n), scores.row(n));
      const std::span<const T> row = scores.row(n);
      scratch.count[std::size_t(n)] = int(select.select(row, trace.experts(), slots(n)));
      scratch.nan[std::size_t(n)] = has_nan(logits.row(n));
    });

    Routing<T>& routing = trace.routing;
    routing.start(trace.experts());
    for (Index n = 0; n < trace.tokens(); ++n) {
      for (int e : slots(n).first(std::size_t(scratch.count[std::size_t(n)]))) routing.push(e, T(0));
      routing.end_token();
      trace.nan_tokens += scratch.nan[std::size_t(n)];
    }
    routing.finish();

    for_each_token(call, trace.tokens(), [&](Index n) {
      const std::span<const T> row = scores.row(n);
      weigh.forward(row, routing.experts_of(n), routing.weights_of(n));
    });
  }

  template <class T, class C>
  void backward(Trace<T>& trace, C& call) const {
    const View<const T> logits = std::as_const(trace).logits(), scores = std::as_const(trace).scores();
    const View<T> d_scores = trace.d_scores(), d_logits = trace.d_logits();
    const Routing<T>& routing = trace.routing;
    const std::span<const T> d_weight = trace.d_weight();
    for_each_token(call, trace.tokens(), [&](Index n) {
      weigh.backward(scores.row(n), routing.experts_of(n), routing.weights_of(n), routing.of_token(d_weight, n),
                     d_scores.row(n));
      const std::span<const T> d_row = d_scores.row(n);
      score.backward(logits.row(n), scores.row(n), d_row, d_logits.row(n));
    });
  }

  /// The weight that every expert has for every token.
  double constant_weight() const requires std::is_same_v<Select, All> && std::is_same_v<Weigh, Unit> { return 1; }

  [[no_unique_address]] Score score;
  [[no_unique_address]] Select select;
  [[no_unique_address]] Weigh weigh;

 private:
  template <class C, class F>
  static void for_each_token(C& call, Index tokens, F f) {
    constexpr Index chunk = 64;  // a token costs about 0.1-1 us: enough work to share
    call.execution.parallel_for((tokens + chunk - 1) / chunk, [&](Index c) {
      for (Index n = c * chunk; n < std::min(tokens, (c + 1) * chunk); ++n) f(n);
    });
  }

  template <class T>
  static bool has_nan(std::span<const T> row) {
    bool found = false;
    for (T value : row) found |= std::isnan(value);
    return found;
  }
};

}  // namespace mole
