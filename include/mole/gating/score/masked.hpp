// SPDX-License-Identifier: MIT
// Masked: another score, over the experts that are allowed.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/state.hpp"
#include "mole/gating/score/score_policy.hpp"
#include "mole/gating/score/whole_call_score_policy.hpp"

#include <cstdint>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Another score for the experts that are allowed; the others are excluded, whatever their logits.
///
///   allowed [E], 0 or 1: experts of one tenant, not yet pruned, or that serve only the tokens that are forced to them
///
/// It is the gate that gives the excluded a logit of -infinity, by allows(); this score hands on what it is given. For
/// Softmax there is MaskedSoftmax, which also stands alone. To exclude experts per token, say so in the
/// pass (Pass::allowed).
/// Throws Error(option) unless `allowed` has E flags. No cost beyond that of the score.
template <class Score>
struct Masked {
  Score score;
  std::vector<std::uint8_t> allowed;

  Masked(Score score_, std::vector<std::uint8_t> allowed_) : score(std::move(score_)), allowed(std::move(allowed_)) {}

  static constexpr Index extra = [] {
    Index columns = 0;
    if constexpr (requires { Score::extra; }) columns = Score::extra;
    return columns;
  }();

  void check(Index experts) const {
    if constexpr (requires { score.check(experts); }) score.check(experts);
    require_equal(ErrorCode::option, "Masked: flags of allowed experts", experts, Index(allowed.size()));
  }

  bool allows(Index expert) const { return allowed[std::size_t(expert)] != 0; }

  template <class T>
  auto log_ratio(std::span<const T> logits, int e, int f) const requires requires {
    score.log_ratio(logits, e, f);
  }
  { return score.log_ratio(logits, e, f); }
  template <class T>
  auto d_log_score(std::span<const T> logits, int e) const requires requires {
    score.d_log_score(logits, e);
  }
  { return score.d_log_score(logits, e); }
  auto has_logs(std::span<const int> chosen) const requires requires { score.has_logs(chosen); }
  { return score.has_logs(chosen); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("score", score, f);
  }

  template <class V, class... Loops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops&... loops) const requires requires {
    score.forward(logits, scores, loops...);
  }
  { score.forward(logits, scores, loops...); }

  template <class V, class... Loops>
  void backward(std::span<const V> logits, std::span<const V> scores, std::span<const V> d_scores,
                std::span<V> d_logits, const Loops&... loops) const requires requires {
    score.backward(logits, scores, d_scores, d_logits, loops...);
  }
  { score.backward(logits, scores, d_scores, d_logits, loops...); }

  template <class T>
  void forward_whole_call(View<const T> logits, View<T> scores,
                          const Pass& pass) const requires WholeCallScorePolicy<Score, T> {
    score.forward_whole_call(logits, scores, pass);
  }
  template <class T>
  void backward_whole_call(View<const T> logits, View<const T> scores, View<const T> d_scores, View<T> d_logits,
                           const Pass& pass) const requires WholeCallScorePolicy<Score, T> {
    score.backward_whole_call(logits, scores, d_scores, d_logits, pass);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
