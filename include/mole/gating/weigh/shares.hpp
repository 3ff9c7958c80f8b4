// SPDX-License-Identifier: MIT
// Shares: gates that divide a fixed sum among the chosen experts, in proportion to their scores.
#pragma once

#include "mole/gating/weigh/weigh_policy.hpp"

#include <limits>

namespace mole::detail {

/// gate_e = total (score_e - least) / (sum over the chosen of score_e - least); all 0 if that sum is 0.
template <class T>
class Shares {
 public:
  Shares(std::span<const T> scores, std::span<const int> chosen, T total, T least = 0)
      : scores_(scores), chosen_(chosen), total_(total), least_(least) {
    for (int e : chosen)
      if (const T score = scores[std::size_t(e)]; !kernel::is_minus_infinity(score)) sum_ += score - least;
  }

  void forward(std::span<T> gates) const {
    const T divisor = sum_ != 0 ? sum_ : std::numeric_limits<T>::infinity();
    for (std::size_t j = 0; j < chosen_.size(); ++j) {
      const T score = scores_[std::size_t(chosen_[j])];
      gates[j] = kernel::is_minus_infinity(score) ? T(0) : (score - least_) / divisor * total_;
    }
  }

  /// d_score_e += (total d_gate_e - <gates, d_gates>) / sum, for the chosen. Returns the sum of what it added, which is
  /// -d_least.
  T backward(std::span<const T> gates, std::span<const T> d_gates, std::span<T> d_scores) const {
    if (sum_ == 0) return 0;
    T mean = 0, added = 0;
    for (std::size_t j = 0; j < chosen_.size(); ++j) mean += gates[j] * d_gates[j];
    for (std::size_t j = 0; j < chosen_.size(); ++j) {
      const auto e = std::size_t(chosen_[j]);
      if (kernel::is_minus_infinity(scores_[e])) continue;
      const T d_score = (total_ * d_gates[j] - mean) / sum_;
      d_scores[e] += d_score;
      added += d_score;
    }
    return added;
  }

 private:
  std::span<const T> scores_;
  std::span<const int> chosen_;
  T total_, least_, sum_ = 0;
};

}  // namespace mole::detail
