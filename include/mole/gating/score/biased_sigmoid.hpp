// SPDX-License-Identifier: MIT
// BiasedSigmoid: independent scores that include a balancing bias.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/score/sigmoid.hpp"

#include <cmath>
#include <algorithm>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score_e = sigmoid(logit_e) + bias_e.
///
///   bias [E]: state, written between calls by the code that balances the experts (SignBiasBalancer)
///
/// As in SMoRA, the bias acts on the gate as well as on the selection; GroupedTopK has one for the selection alone, as
/// DeepSeek-V3. Its gradient would be the sum over tokens of d_scores; it is not computed.
/// Throws Error(option) unless the bias has E numbers.
/// Source: Zhao et al. 2025 (SMoRA), arXiv:2501.15103; StyxXuan/smora.
template <class T>
struct BiasedSigmoid {
  std::vector<T> bias;  ///< state

  explicit BiasedSigmoid(Index experts) : bias(std::size_t(experts), T(0)) {}

  void check(Index experts) const {
    require_equal(ErrorCode::option, "BiasedSigmoid: numbers of the bias", experts, Index(bias.size()));
    for (T b : bias)
      require(std::isfinite(b), ErrorCode::option, "BiasedSigmoid: expected a finite bias, found ", double(b),
              "; a logit of -infinity excludes an expert");
  }

  template <class F>
  void for_each_state(F&& f) {
    f("bias", std::span<T>(bias));
  }

  /// Without a bias, as of Sigmoid; a score with one does not vanish.
  bool has_logs(std::span<const int> chosen) const {
    return std::ranges::all_of(chosen, [&](int e) { return bias[std::size_t(e)] == 0; });
  }
  T log_ratio(std::span<const T> logits, int e, int f) const { return Sigmoid{}.log_ratio(logits, e, f); }
  T d_log_score(std::span<const T> logits, int e) const { return Sigmoid{}.d_log_score(logits, e); }

  void forward(std::span<const T> logits, std::span<T> scores) const {
    Sigmoid{}.forward(logits, scores);
    for (std::size_t e = 0; e < scores.size(); ++e) scores[e] += bias[e];
  }

  /// d_logit = d_score s (1 - s),  s = sigmoid(logit)
  void backward(std::span<const T> logits, std::span<const T>, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    for (std::size_t e = 0; e < logits.size(); ++e) {
      T s;
      Sigmoid{}.forward(logits.subspan(e, 1), std::span<T>(&s, 1));
      d_logits[e] += d_scores[e] * s * (1 - s);
    }
  }
};

static_assert(ScorePolicy<BiasedSigmoid<float>, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
