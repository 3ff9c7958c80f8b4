// SPDX-License-Identifier: MIT
// SoftmaxOverTokens: the share of each token in what an expert wants.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/score/whole_call_score_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score_ne = exp(logit_ne / temperature) / sum over the tokens m of exp(logit_me / temperature): the scores of an
/// expert sum to 1 over the tokens of a call, or of each sequence.
///
///   logits [N x E]   ->   scores [N x E]
///
/// For selections in which experts choose their tokens (ExpertChoice). A token's scores depend on those that come after
/// it. Tokens that are not routed, or are forced to an expert, are not among the tokens, and have scores of 0, as have
/// all tokens for which an expert is excluded; a NaN counts for no other token.
/// Throws Error(option) unless the temperature is from 1e-30 to 1e30.  O(N E), one thread, no allocation.
/// Source: ali-vilab/ProMoE, models/models_ProMoE_EC.py (weights "softmax"; its configurations take the cosine itself).
struct SoftmaxOverTokens {
  double temperature = 1;
  bool per_sequence = false;

  void check(Index) const {
    require(temperature > 0 && in_float_range(temperature), ErrorCode::option,
            "SoftmaxOverTokens: expected a temperature from 1e-30 to 1e30, found ", temperature);
  }

  template <class T>
  void forward_whole_call(View<const T> logits, View<T> scores, const Pass& pass) const {
    fill(scores, T(0));
    for_each_group(logits.rows(), pass, [&](Index first, Index end) {
      for (Index e = 0; e < logits.cols(); ++e) {
        T most = std::numeric_limits<T>::lowest(), sum = 0;
        const auto for_each_number = [&](auto&& f) {
          for (Index n = first; n < end; ++n)
            if (pass.chooses(n) && !std::isnan(logits(n, e))) f(n);
        };
        for_each_number([&](Index n) { most = std::max(most, logits(n, e)); });
        for_each_number([&](Index n) { sum += scores(n, e) = std::exp((logits(n, e) - most) * T(1 / temperature)); });
        for_each_number([&](Index n) { scores(n, e) /= std::max(sum, T(1)); });  // the largest adds 1, unless excluded
      }
    });
    for (Index n = 0; n < logits.rows(); ++n)
      for (Index e = 0; e < logits.cols(); ++e)
        if (std::isnan(logits(n, e))) scores(n, e) = logits(n, e);
  }

  /// d_logit_ne = score_ne (d_score_ne - sum over the tokens of score_me d_score_me) / temperature
  template <class T>
  void backward_whole_call(View<const T>, View<const T> scores, View<const T> d_scores, View<T> d_logits,
                           const Pass& pass) const {
    for_each_group(scores.rows(), pass, [&](Index first, Index end) {
      for (Index e = 0; e < scores.cols(); ++e) {
        const auto for_each_share = [&](auto&& f) {  // a score of 0 passes no gradient, and d_scores may be NaN there
          for (Index n = first; n < end; ++n)
            if (pass.chooses(n) && scores(n, e) > 0) f(n);
        };
        T mean = 0;
        for_each_share([&](Index n) { mean += scores(n, e) * d_scores(n, e); });
        for_each_share([&](Index n) { d_logits(n, e) += scores(n, e) * (d_scores(n, e) - mean) * T(1 / temperature); });
      }
    });
  }

 private:
  /// Calls f(first, end) for the tokens of each softmax.
  template <class F>
  void for_each_group(Index tokens, const Pass& pass, F f) const {
    if (!per_sequence) return f(0, tokens);
    for (Index s = 0; s < pass.sequences(); ++s) f(pass.first_of(s), pass.end_of(s, tokens));
  }
};

static_assert(WholeCallScorePolicy<SoftmaxOverTokens, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
