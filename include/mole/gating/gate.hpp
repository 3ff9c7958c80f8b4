// SPDX-License-Identifier: MIT
// The usual gating: three small questions, one policy for each.
#pragma once

#include "mole/gating/gating_policy.hpp"
#include "mole/gating/score_policy.hpp"
#include "mole/gating/score_rows.hpp"
#include "mole/gating/select_policy.hpp"
#include "mole/gating/select_rows.hpp"
#include "mole/gating/weigh_policy.hpp"
#include "mole/gating/all.hpp"
#include "mole/gating/unit.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

namespace mole {

namespace detail {
template <class Execution>
struct ArchitectureOf {
  using type = void;
};
template <class Execution>
requires requires {
  typename Execution::Architecture;
}
struct ArchitectureOf<Execution> {
  // Vectors of one element are none: so a user's own part needs no more than its scalar form on any processor.
  using Arch = typename Execution::Architecture;
  using type = std::conditional_t<std::is_same_v<Arch, kernel::Scalar>, void, Arch>;
};
}  // namespace detail

/// Score the logits, select from the scores, weigh the selected.
///
///   logits [N x (E + extra)] -> scores [N x (E + extra)] -> routing
///
/// The selection is a constant in backward; the weights are differentiated exactly. Tokens are independent of each
/// other. Parts that have a form with vectors (LoopedScorePolicy, LaneSelectPolicy) use it wherever the execution names
/// its Architecture; scores then agree with the scalar form up to rounding. No allocation after scratch().
template <class Score, class Select, class Weigh>
class Gate {
 public:
  struct Scratch {
    Matrix<int> chosen;                   // [tokens x at least max_chosen]
    std::pmr::vector<int> count;          // chosen experts a token
    std::pmr::vector<unsigned char> nan;  // 1 where a logit is NaN
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
    return {Matrix<int>(capacity.tokens, slots, capacity.memory),
            std::pmr::vector<int>(std::size_t(capacity.tokens), capacity.memory),
            std::pmr::vector<unsigned char>(std::size_t(capacity.tokens), capacity.memory)};
  }

  std::size_t scratch_bytes(const Capacity& capacity) const {
    const Index slots = capacity.tokens ? capacity.pairs / capacity.tokens : 0;
    return array_bytes<int>(capacity.tokens * slots) + array_bytes<int>(capacity.tokens) +
           array_bytes<unsigned char>(capacity.tokens);
  }

  template <class T, class C>
  void choose(Trace<T>& trace, C& call) const {
    static_assert(ScorePolicy<Score, T>, "mole: Score does not model ScorePolicy (mole/gating/score_policy.hpp)");
    static_assert(SelectPolicy<Select, T>, "mole: Select does not model SelectPolicy (mole/gating/select_policy.hpp)");
    static_assert(WeighPolicy<Weigh, T>, "mole: Weigh does not model WeighPolicy (mole/gating/weigh_policy.hpp)");
    Scratch& scratch = call.scratch;
    const View<const T> logits = std::as_const(trace).logits();
    const View<T> scores = trace.scores();
    const View<int> chosen = scratch.chosen.view();
    const auto count = std::span(scratch.count).first(std::size_t(trace.tokens()));
    const auto nan = std::span(scratch.nan).first(std::size_t(trace.tokens()));
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      const auto of_chunk = [&](auto per_token) { return per_token.subspan(std::size_t(first), std::size_t(tokens)); };
      const View<T> rows = scores.middle_rows(first, tokens);
      ScoreRows<ArchOf<C>>::forward(score, logits.middle_rows(first, tokens), rows, of_chunk(nan));
      SelectRows<ArchOf<C>>::select(select, View<const T>(rows), trace.experts(), chosen.middle_rows(first, tokens),
                                    of_chunk(count));
    });

    Routing<T>& routing = trace.routing;
    routing.start(trace.experts(), count);
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      for (Index n = first; n < first + tokens; ++n) {
        const std::span<int> experts = routing.experts_of(n);
        std::copy_n(chosen.row_data(n), experts.size(), experts.begin());
        const std::span<const T> row = scores.row(n);
        if constexpr (BatchWeighPolicy<Weigh, T>)
          weigh.forward(row, std::span<const int>(experts), routing.weights_of(n), call.batch);
        else
          weigh.forward(row, std::span<const int>(experts), routing.weights_of(n));
      }
    });
    routing.finish();
    trace.nan_tokens += std::count(nan.begin(), nan.end(), 1);
  }

  template <class T, class C>
  void backward(Trace<T>& trace, C& call) const {
    const View<const T> logits = std::as_const(trace).logits(), scores = std::as_const(trace).scores();
    const View<T> d_scores = trace.d_scores(), d_logits = trace.d_logits();
    const Routing<T>& routing = trace.routing;
    const std::span<const T> d_weight = trace.d_weight();
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      for (Index n = first; n < first + tokens; ++n)
        if constexpr (BatchWeighPolicy<Weigh, T>)
          weigh.backward(scores.row(n), routing.experts_of(n), routing.weights_of(n), routing.of_token(d_weight, n),
                         d_scores.row(n), call.batch);
        else
          weigh.backward(scores.row(n), routing.experts_of(n), routing.weights_of(n), routing.of_token(d_weight, n),
                         d_scores.row(n));
      ScoreRows<ArchOf<C>>::backward(score, logits.middle_rows(first, tokens), scores.middle_rows(first, tokens),
                                     View<const T>(d_scores.middle_rows(first, tokens)),
                                     d_logits.middle_rows(first, tokens));
    });
  }

  /// The weight that every expert has for every token.
  double constant_weight() const requires std::is_same_v<Select, All> && std::is_same_v<Weigh, Unit> { return 1; }

  [[no_unique_address]] Score score;
  [[no_unique_address]] Select select;
  [[no_unique_address]] Weigh weigh;

 private:
  /// The vectors that a call's execution has; void where it has none.
  template <class C>
  using ArchOf = typename detail::ArchitectureOf<std::remove_cvref_t<decltype(std::declval<C&>().execution)>>::type;

  /// Calls f(first token, tokens) for chunks of 10 us or more, which are worth sharing.
  template <class T, class C, class F>
  static void for_each_chunk(C& call, const Trace<T>& trace, F f) {
    const Index chunk = 64 * std::max<Index>(1, 128 / std::max<Index>(1, trace.experts()));
    call.execution.parallel_for((trace.tokens() + chunk - 1) / chunk,
                                [&](Index c) { f(c * chunk, std::min(chunk, trace.tokens() - c * chunk)); });
  }
};

}  // namespace mole
