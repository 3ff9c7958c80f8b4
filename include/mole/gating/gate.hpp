// SPDX-License-Identifier: MIT
// Gate: a gating made of a score, a selection and a weighing.
#pragma once

#include "mole/core/state.hpp"
#include "mole/gating/gating_policy.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/score_policy.hpp"
#include "mole/gating/score/score_rows.hpp"
#include "mole/gating/score/whole_call_score_policy.hpp"
#include "mole/gating/select/select_policy.hpp"
#include "mole/gating/select/select_rows.hpp"
#include "mole/gating/select/select_whole_call.hpp"
#include "mole/gating/weigh/weigh_policy.hpp"
#include "mole/kernel/architecture_of.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Scores the logits, selects experts by the scores, weighs the selected.
///
///   logits [N x (E + extra)] -> scores [N x (E + extra)] -> routing
///
/// The selection is a constant in backward; the gates are differentiated exactly. Tokens are independent of each
/// other, unless Score or Select looks at the whole call (WholeCallScorePolicy, WholeCallSelectPolicy). The last
/// `shared` experts have no score: they serve every token with gate 1, after the experts chosen for it (DeepSeekMoE). A
/// token that pass.routes() excludes gets no expert; one with an expert in pass.forced gets that expert and the shared
/// ones, whatever its logits are. An expert that the score or pass.allowed excludes has its logits in the trace set to
/// -infinity; one with a logit of -infinity serves no other token, also where Select takes more experts than are left,
/// takes nobody's place, and this logit gets no gradient. An expert with a logit of NaN has a score of NaN; the others
/// of the token are scored without it.
///
/// Parts that have a vectorized form (LoopedScorePolicy, LaneSelectPolicy) use it if the execution names its
/// Architecture; scores then agree with the scalar form up to rounding. No allocation after scratch().
template <class Score, class Select, class Weigh>
class Gate {
 public:
  struct Scratch {
    std::span<int> count;                // chosen experts of each token
    std::span<unsigned char> found;      // ScoreRows' flags of the logits of each token
    ScratchVector<EmittedPair> emitted;  // for a Select of the whole call
    ScratchOf<Select> select;
  };

  Gate(Score score_, Select select_, Weigh weigh_, Index shared = 0)
      : score(std::move(score_)), select(std::move(select_)), weigh(std::move(weigh_)), shared_(shared) {}

  /// Throws Error(option) when an option of a part does not fit `experts`.
  void check(Index experts) const {
    require(shared_ >= 0 && shared_ < experts, ErrorCode::option,
            "Gate: expected shared experts from 0 to less than all ", experts, ", found ", shared_);
    const auto check_part = [&](const auto& part) {
      if constexpr (requires { part.check(experts); }) part.check(experts - shared_);
    };
    check_part(score);
    check_part(select);
    check_part(weigh);
  }

  /// The number of shared experts: the last ones, which have no logit and serve every token.
  Index shared() const { return shared_; }
  /// One per expert that is not shared, and those that the score has after the experts.
  Index columns(Index experts) const { return experts - shared_ + extra_columns; }
  Index max_pairs(Index tokens, Index experts) const {
    if constexpr (whole_call)
      return select.max_pairs(tokens, experts - shared_) + tokens * (shared_ + 1);  // one may be forced
    else
      return tokens * slots(experts);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.array<int>(size.tokens), arena.array<unsigned char>(size.tokens),
            arena.vector<EmittedPair>(whole_call ? size.pairs : 0), scratch_for(select, size, arena)};
  }

  template <class T, class C>
  void choose(Trace<T>& trace, C call) const {
    static_assert(
        whole_call_score<T> || ScorePolicy<Score, T>,
        "mole: Score does not model ScorePolicy (mole/gating/score/score_policy.hpp), nor WholeCallScorePolicy "
        "(mole/gating/score/whole_call_score_policy.hpp)");
    static_assert(
        whole_call || SelectPolicy<Select, T>,
        "mole: Select does not model SelectPolicy (mole/gating/select/select_policy.hpp), nor WholeCallSelectPolicy "
        "(mole/gating/select/whole_call_select_policy.hpp)");
    static_assert(WeighPolicy<Weigh, T>, "mole: Weigh does not model WeighPolicy (mole/gating/weigh/weigh_policy.hpp)");
    static_assert(
        !(weigh_reads_all<Weigh> && extra_columns > 0),
        "mole: Weigh reads the scores of all experts, and Score has columns behind them, which it would count");
    const View<const T> logits = std::as_const(trace).logits();
    const View<T> scores = trace.scores();
    using Rows = ScoreRows<ArchOf<C>>;
    const auto found = call.scratch.found.first(std::size_t(trace.tokens()));
    const auto hide = [&](Index first, Index tokens) {
      for (Index n = first; n < first + tokens; ++n)
        if ((found[std::size_t(n)] & Rows::minus_infinity) != 0) hide_excluded(trace, n);
    };
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      exclude(trace, call.pass, first, first + tokens);
      Rows::forward(score_of_row<T>(), logits.middle_rows(first, tokens), scores.middle_rows(first, tokens),
                    found.subspan(std::size_t(first), std::size_t(tokens)));
      if constexpr (!whole_call_score<T>) {
        for (Index n = first; n < first + tokens; ++n)
          if ((found[std::size_t(n)] & Rows::nan) != 0) score_without_nan(trace, n);
        hide(first, tokens);
      }
    });
    if constexpr (whole_call_score<T>) {
      score.forward_whole_call(logits, scores, call.pass);
      hide(0, trace.tokens());
    }
    if constexpr (whole_call)
      select_whole_call(
          select, trace, call.pass, [&](Index n, int e) { return trace.excluded(n, e); }, call.scratch.count,
          call.scratch.emitted, call.scratch.select);
    else
      choose_each(trace, call);

    Routing<T>& routing = trace.routing;
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      for (Index n = first; n < first + tokens; ++n) {
        if ((found[std::size_t(n)] & Rows::minus_infinity) != 0) show_excluded(trace, n);
        const std::span<T> gates = routing.gates_of(n);
        const std::size_t chosen = gates.size() - shared_in(gates.size());
        weigh_forward<T>(call.pass, n, logits.row(n), scores.row(n), routing.experts_of(n).first(chosen),
                         gates.first(chosen));
        std::fill(gates.begin() + std::ptrdiff_t(chosen), gates.end(), T(1));
      }
    });
    routing.finish();
    for (Index n = 0; n < trace.tokens(); ++n)
      trace.nan_tokens += (found[std::size_t(n)] & Rows::nan) != 0 && call.pass.counts(n);
  }

  template <class T, class C>
  void backward(Trace<T>& trace, C call) const {
    const View<const T> logits = std::as_const(trace).logits(), scores = std::as_const(trace).scores();
    const View<T> d_scores = trace.d_scores(), d_logits = trace.d_logits();
    const Routing<T>& routing = trace.routing;
    const std::span<const T> d_gate = trace.d_gate();
    const auto clear_excluded = [&](Index first, Index tokens) {
      for (Index n = first; n < first + tokens; ++n)
        if (!call.pass.routes(n))
          std::ranges::fill(d_logits.row(n), T(0));  // 0 times NaN is NaN
        else if (trace.excludes(n))
          for (Index e = 0; e < trace.scored_experts(); ++e)
            if (trace.excluded(n, e)) d_logits(n, e) = 0;
    };
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      for (Index n = first; n < first + tokens; ++n) {
        const std::span<const T> gates = routing.gates_of(n);
        const std::size_t chosen = gates.size() - shared_in(gates.size());
        weigh_backward<T>(call.pass, n, logits.row(n), scores.row(n), routing.experts_of(n).first(chosen),
                          gates.first(chosen), routing.of_token(d_gate, n).first(chosen), d_scores.row(n),
                          d_logits.row(n));
      }
      if constexpr (!whole_call_score<T>) {
        ScoreRows<ArchOf<C>>::backward(score, logits.middle_rows(first, tokens), scores.middle_rows(first, tokens),
                                       View<const T>(d_scores.middle_rows(first, tokens)),
                                       d_logits.middle_rows(first, tokens));
        clear_excluded(first, tokens);
      }
    });
    if constexpr (whole_call_score<T>) {
      score.backward_whole_call(logits, scores, View<const T>(d_scores), d_logits, call.pass);
      clear_excluded(0, trace.tokens());
    }
  }

  /// The state of the three parts, as "score.bias" and so on.
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("score", score, f);
    for_each_state_within("select", select, f);
    for_each_state_within("weigh", weigh, f);
  }

  static constexpr bool has_gradient = weigh_has_gradient<Weigh>;
  /// The gate that every expert has for every token, if there is one; that of shared experts is 1.
  std::optional<double> constant_gate(Index experts) const {
    if constexpr (requires { weigh.constant_gate(); })
      if (token_dependence(experts).empty()) return weigh.constant_gate();
    return {};
  }
  std::string token_dependence(Index experts) const {
    bool all = false;
    if constexpr (requires { select.takes_all(experts); }) all = select.takes_all(experts - shared_);
    if constexpr (requires { score.allows(experts); })
      for (Index e = 0; e < experts - shared_; ++e)
        if (!score.allows(e)) return "its score excludes experts";
    if (!all) return "its gate chooses experts for each token; All, or TopK of all experts, has nothing to choose";
    if constexpr (requires { weigh.constant_gate(); }) {
      if (shared_ == 0 || weigh.constant_gate() == 1) return "";
      return "its gate weighs shared experts in another way than the others";
    }
    return "its gating gives each token gates of its own; Unit has the same for all";
  }

  [[no_unique_address]] Score score;
  [[no_unique_address]] Select select;
  [[no_unique_address]] Weigh weigh;

 private:
  /// Does Select look at all tokens of a call?
  static constexpr bool whole_call = requires(const Select& s) { s.max_pairs(Index(), Index()); };

  /// Columns of the logits behind those of the experts.
  static constexpr Index extra_columns = [] {
    Index extra = 0;
    if constexpr (requires { Score::extra; }) extra = Score::extra;
    return extra;
  }();

  /// The most experts that a token may have.
  Index slots(Index experts) const { return select.max_chosen(experts - shared_) + shared_; }
  /// How many of the pairs of a token are with shared experts.
  std::size_t shared_in(std::size_t pairs) const { return pairs == 0 ? 0 : std::size_t(shared_); }

  /// Does Score look at all tokens of a call?
  template <class T>
  static constexpr bool whole_call_score = WholeCallScorePolicy<Score, T>;

  /// What makes the scores of a row: a score of the whole call follows, until then they are logits.
  template <class T>
  decltype(auto) score_of_row() const {
    if constexpr (whole_call_score<T>)
      return Identity{};
    else
      return (score);
  }

  /// Sets the logits of experts that the score or the pass does not allow to -infinity.
  template <class T>
  void exclude(Trace<T>& trace, const Pass& pass, Index first, Index end) const {
    const Index experts = trace.scored_experts();
    if constexpr (requires { score.allows(Index()); })
      for (Index e = 0; e < experts; ++e)
        for (Index n = first; n < end && !score.allows(e); ++n)
          trace.logits()(n, e) = -std::numeric_limits<T>::infinity();
    if (!pass.allowed.empty())
      for (Index n = first; n < end; ++n)
        for (Index e = 0; e < experts; ++e)
          if (pass.allowed[std::size_t(n * experts + e)] == 0)
            trace.logits()(n, e) = -std::numeric_limits<T>::infinity();
  }

  /// The scores of a token with NaN among its logits; its d_scores, still 0, hold logits without NaN meanwhile.
  template <class T>
  void score_without_nan(Trace<T>& trace, Index n) const {
    const std::span<const T> logits = std::as_const(trace).logits().row(n);
    const std::span<T> numbers = trace.d_scores().row(n), scores = trace.scores().row(n);
    const auto for_each_nan = [&](auto&& f) {
      for (std::size_t e = 0; e < std::size_t(trace.scored_experts()); ++e)
        if (std::isnan(logits[e])) f(e);
    };
    std::ranges::copy(logits, numbers.begin());
    for_each_nan([&](std::size_t e) { numbers[e] = -std::numeric_limits<T>::infinity(); });
    score.forward(std::span<const T>(numbers), scores);
    for_each_nan([&](std::size_t e) { scores[e] = logits[e]; });
    std::ranges::fill(numbers, T(0));
  }

  /// For a selection, the scores of excluded experts are -infinity: behind all others that are numbers, also behind a
  /// 0. Their own scores are in d_scores, which are 0 before and after.
  template <class T>
  void hide_excluded(Trace<T>& trace, Index n) const {
    for (Index e = 0; e < trace.scored_experts(); ++e)
      if (trace.excluded(n, e))
        trace.d_scores()(n, e) = std::exchange(trace.scores()(n, e), -std::numeric_limits<T>::infinity());
  }
  template <class T>
  void show_excluded(Trace<T>& trace, Index n) const {
    for (Index e = 0; e < trace.scored_experts(); ++e)
      if (trace.excluded(n, e)) trace.scores()(n, e) = std::exchange(trace.d_scores()(n, e), T(0));
  }

  /// Must shares be taken from logits?
  template <class T>
  static constexpr bool has_logs = requires(const Score& s, const Weigh& w, std::span<const T> numbers,
                                            std::span<const int> chosen) {
    s.log_ratio(numbers, 0, 0);
    w.needs_logs(numbers, chosen);
  };
  template <class T>
  bool needs_logs(std::span<const T> scores, std::span<const int> chosen) const {
    bool needs = weigh.needs_logs(scores, chosen);
    if constexpr (requires { score.has_logs(chosen); }) needs = needs && score.has_logs(chosen);
    return needs;
  }

  template <class T>
  void weigh_forward(const Pass& pass, Index n, std::span<const T> logits, std::span<const T> scores,
                     std::span<const int> chosen, std::span<T> gates) const {
    if constexpr (requires { weigh.lone_gate(); })
      if (pass.forced_expert(n) >= 0) return std::ranges::fill(gates, T(weigh.lone_gate())), void();
    if constexpr (has_logs<T>)
      if (needs_logs(scores, chosen))
        return weigh.forward_from_logs([&](int e, int f) { return score.log_ratio(logits, e, f); }, chosen, gates);
    if constexpr (requires { weigh.forward(scores, chosen, gates, pass); })
      weigh.forward(scores, chosen, gates, pass);
    else
      weigh.forward(scores, chosen, gates);
  }
  template <class T>
  void weigh_backward(const Pass& pass, Index n, std::span<const T> logits, std::span<const T> scores,
                      std::span<const int> chosen, std::span<const T> gates, std::span<const T> d_gates,
                      std::span<T> d_scores, std::span<T> d_logits) const {
    if constexpr (requires { weigh.lone_gate(); })
      if (pass.forced_expert(n) >= 0) return;
    if constexpr (has_logs<T>)
      if (needs_logs(scores, chosen))
        return weigh.backward_from_logs(chosen, gates, d_gates, [&](int e, T d_log) {
          d_logits[std::size_t(e)] += d_log * score.d_log_score(logits, e);
        });
    if constexpr (requires { weigh.backward(scores, chosen, gates, d_gates, d_scores, pass); })
      weigh.backward(scores, chosen, gates, d_gates, d_scores, pass);
    else
      weigh.backward(scores, chosen, gates, d_gates, d_scores);
  }

  /// Each token on its own, in staged memory that start() compacts.
  template <class T, class C>
  void choose_each(Trace<T>& trace, C call) const {
    const Index experts = trace.scored_experts();
    const View<int> chosen = trace.routing.stage(trace.experts(), trace.tokens(), slots(trace.experts()));
    const auto count = call.scratch.count.first(std::size_t(trace.tokens()));
    for_each_chunk(call, trace, [&](Index first, Index tokens) {
      SelectRows<ArchOf<C>>::select(select, View<const T>(trace.scores().middle_rows(first, tokens)), experts,
                                    chosen.middle_rows(first, tokens),
                                    count.subspan(std::size_t(first), std::size_t(tokens)));
      for (Index n = first; n < first + tokens; ++n) {
        int& chosen_for_n = count[std::size_t(n)];
        if (!call.pass.routes(n)) {
          chosen_for_n = 0;
          continue;
        }
        if (const int forced = call.pass.forced_expert(n); forced >= 0) {
          chosen(n, 0) = forced;
          chosen_for_n = 1;
        } else {
          const auto row = chosen.row(n).first(std::size_t(chosen_for_n));
          const auto kept = std::remove_if(row.begin(), row.end(), [&](int e) { return trace.excluded(n, e); });
          chosen_for_n = int(kept - row.begin());
        }
        for (Index s = 0; s < shared_; ++s) chosen(n, chosen_for_n++) = int(experts + s);
      }
    });
    trace.routing.start(trace.experts(), count);
  }

  /// The architecture of a call's execution; void if it has none.
  template <class C>
  using ArchOf = kernel::ArchitectureOf<decltype(std::declval<C&>().execution)>;

  /// Calls f(first token, tokens) for chunks that take 10 us or more, enough to be worth a thread.
  template <class T, class C, class F>
  static void for_each_chunk(C call, const Trace<T>& trace, F f) {
    const Index chunk = 64 * std::max<Index>(1, 128 / std::max<Index>(1, trace.experts()));
    call.execution.parallel_for((trace.tokens() + chunk - 1) / chunk,
                                [&](Index c) { f(c * chunk, std::min(chunk, trace.tokens() - c * chunk)); });
  }

  Index shared_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
