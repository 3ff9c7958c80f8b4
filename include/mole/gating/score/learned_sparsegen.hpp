// SPDX-License-Identifier: MIT
// LearnedSparsegen: sparsegen scores whose sparsity is learned per token.
#pragma once

#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/score/sparsegen.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Sparsegen with a lambda per token, from the column after the experts:
///
///   lambda = log(sigmoid(logit_E)) + 1 - epsilon   (below 1 whatever the logit)
///
///   logits [N x (E + 1)] -> scores [N x (E + 1)], whose last column is lambda
///
/// Throws Error(option) unless epsilon is from 1e-6, with which lambda is below 1 in float as well, to 1e30.
/// Source: Zhuang et al. 2025 (LD-MoLE), arXiv:2509.25684; eshentw/LD-MoLE.
struct LearnedSparsegen {
  static constexpr Index extra = 1;
  double epsilon = 0.01;

  void check(Index) const {
    require(epsilon >= 1e-6 && epsilon <= 1e30, ErrorCode::option,
            "LearnedSparsegen: expected an epsilon from 1e-6 to 1e30, found ", epsilon);
  }

  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    const std::size_t experts = logits.size() - 1;
    scores[experts] = std::max(Sigmoid::log_score(logits[experts]) + T(1 - epsilon), T(Sparsegen::least));
    Sparsegen{double(scores[experts])}.forward(logits.first(experts), scores.first(experts));
  }

  /// As Sparsegen, and d_logit_E = (d_lambda + d_score_E) (1 - sigmoid(logit_E))
  template <class T>
  void backward(std::span<const T> logits, std::span<const T> scores, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    const std::size_t experts = logits.size() - 1;
    const T d_lambda = Sparsegen{double(scores[experts])}.backward(logits.first(experts), scores.first(experts),
                                                                   d_scores.first(experts), d_logits.first(experts));
    d_logits[experts] += (d_lambda + d_scores[experts]) / (1 + std::exp(logits[experts]));
  }
};

static_assert(ScorePolicy<LearnedSparsegen, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
