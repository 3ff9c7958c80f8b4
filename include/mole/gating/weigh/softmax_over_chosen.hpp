// SPDX-License-Identifier: MIT
// SoftmaxOverChosen: gates that are a softmax of the chosen scores.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/weigh/weigh_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate = softmax(score / temperature) over the chosen; in inference 0 if score < min_score.
///
/// What the threshold removes is not given to the others: gates sum to 1 in training, to at most 1 in inference. A
/// score of -infinity gets gate 0; if all are -infinity, all gates are 0.
/// Throws Error(option) unless the temperature is from 1e-30 to 1e30, and min_score 0, infinite, or of such a size.
/// O(K) per token.
/// Source: Lu et al. 2025 (MoRAM), arXiv:2506.21035, as released, where min_score is lora_threshold. Without it:
/// Jiang et al. 2024 (Mixtral), arXiv:2401.04088, eq. 1.
struct SoftmaxOverChosen {
  double temperature = 1;
  double min_score = -std::numeric_limits<double>::infinity();

  void check(Index) const {
    require(temperature > 0 && in_float_range(temperature), ErrorCode::option,
            "SoftmaxOverChosen: expected a temperature from 1e-30 to 1e30, found ", temperature);
    require(min_score == 0 || std::isinf(min_score) || in_float_range(min_score), ErrorCode::option,
            "SoftmaxOverChosen: expected a min_score of 0, infinite, or of size 1e-30 to 1e30, found ", min_score);
  }

  double lone_gate() const { return 1; }

  template <class T>
  void forward(std::span<const T> scores, std::span<const int> chosen, std::span<T> gates,
               const Pass& pass = {}) const {
    const Exponential<T> exponential(*this, scores, chosen);
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const T score = scores[std::size_t(chosen[j])];
      gates[j] = kept(score, pass) ? exponential(score) : T(0);
    }
  }

  /// d_score_e = softmax_e (kept_e d_gate_e - <gates, d_gates>) / temperature, for the chosen
  template <class T>
  void backward(std::span<const T> scores, std::span<const int> chosen, std::span<const T> gates,
                std::span<const T> d_gates, std::span<T> d_scores, const Pass& pass = {}) const {
    const Exponential<T> exponential(*this, scores, chosen);  // gates do not show what the threshold removed
    T mean = 0;
    for (std::size_t j = 0; j < chosen.size(); ++j) mean += gates[j] * d_gates[j];
    for (std::size_t j = 0; j < chosen.size(); ++j) {
      const auto e = std::size_t(chosen[j]);
      const T d = kept(scores[e], pass) ? d_gates[j] : T(0);
      d_scores[e] += exponential(scores[e]) * (d - mean) / T(temperature);
    }
  }

 private:
  /// One term of the softmax over the chosen.
  template <class T>
  class Exponential {
   public:
    Exponential(const SoftmaxOverChosen& weigh, std::span<const T> scores, std::span<const int> chosen)
        : inverse_(T(1 / weigh.temperature)) {
      for (int e : chosen) most_ = std::max(most_, scores[std::size_t(e)]);
      T sum = 0;
      for (int e : chosen) sum += std::exp((scores[std::size_t(e)] - most_) * inverse_);
      scale_ = sum == 0 ? T(0) : 1 / sum;
    }
    T operator()(T score) const { return std::exp((score - most_) * inverse_) * scale_; }

   private:
    T inverse_, most_ = std::numeric_limits<T>::lowest(), scale_ = 0;
  };

  template <class T>
  bool kept(T score, const Pass& pass) const {
    return pass.training || !(score < T(min_score));
  }
};

static_assert(WeighPolicy<SoftmaxOverChosen, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
