// SPDX-License-Identifier: MIT
// Shares, shares_from_logs(): gates that divide a fixed sum among the chosen experts, in proportion to their scores.
#pragma once

#include "mole/gating/weigh/weigh_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// gate_e = total (score_e - least) / (sum over the chosen of score_e - least); all 0 if that sum is 0.
///
/// Scores whose sum T cannot hold are scaled. The gradient of a sum below the least normal number is that of this
/// number.
template <class T>
class Shares {
 public:
  Shares(std::span<const T> scores, std::span<const int> chosen, T total, T least = 0)
      : scores_(scores), chosen_(chosen), total_(total), least_(least), sum_(sum()) {
    const T size = std::abs(sum_);
    if (size >= limits::min() / limits::epsilon() && size <= limits::max()) return;
    scale_ = size < 1 ? T(0x1p64) : T(0x1p-64);
    sum_ = sum();
  }

  void forward(std::span<T> gates) const {
    const T divisor = sum_ != 0 ? sum_ : limits::infinity();
    for (std::size_t j = 0; j < chosen_.size(); ++j) {
      const T score = scores_[std::size_t(chosen_[j])];
      gates[j] = kernel::is_minus_infinity(score) ? T(0) : (score - least_) * scale_ / divisor * total_;
    }
  }

  /// d_score_e += (total d_gate_e - <gates, d_gates>) / sum, for the chosen. Returns the sum of what it added, which is
  /// -d_least.
  T backward(std::span<const T> gates, std::span<const T> d_gates, std::span<T> d_scores) const {
    if (sum_ == 0) return 0;
    const T divisor = std::copysign(std::max(std::abs(sum_), limits::min() * scale_), sum_);
    T mean = 0, added = 0;
    for (std::size_t j = 0; j < chosen_.size(); ++j) mean += gates[j] * d_gates[j];
    for (std::size_t j = 0; j < chosen_.size(); ++j) {
      const auto e = std::size_t(chosen_[j]);
      if (kernel::is_minus_infinity(scores_[e])) continue;
      const T d_score = (total_ * d_gates[j] - mean) / divisor * scale_;
      d_scores[e] += d_score;
      added += d_score;
    }
    return added;
  }

 private:
  using limits = std::numeric_limits<T>;

  T sum() const {
    T sum = 0;
    for (int e : chosen_)
      if (const T score = scores_[std::size_t(e)]; !kernel::is_minus_infinity(score)) sum += (score - least_) * scale_;
    return sum;
  }

  std::span<const T> scores_;
  std::span<const int> chosen_;
  T total_, least_, scale_ = 1, sum_;  // sum_: scaled
};

/// gate_e = total score_e / (sum over the chosen of score), from log_ratio(e, f) = log(score_e / score_f): exact also
/// where the scores themselves have vanished. At least one is chosen.
template <class T, class Ratio>
void shares_from_logs(const Ratio& log_ratio, std::span<const int> chosen, T total, std::span<T> gates) {
  int best = chosen.front();
  for (int e : chosen)
    if (log_ratio(e, best) > 0) best = e;
  T sum = 0;
  for (std::size_t j = 0; j < chosen.size(); ++j) sum += gates[j] = std::exp(log_ratio(chosen[j], best));
  for (T& gate : gates) gate = gate / sum * total;
}

/// add(e, gate_e (d_gate_e - <gates, d_gates> / total)), the gradient of log(score_e), for the chosen.
template <class T, class Add>
void add_log_gradients(std::span<const int> chosen, T total, std::span<const T> gates, std::span<const T> d_gates,
                       Add add) {
  T mean = 0;
  for (std::size_t j = 0; j < chosen.size(); ++j) mean += gates[j] * d_gates[j];
  for (std::size_t j = 0; j < chosen.size(); ++j) add(chosen[j], gates[j] * (d_gates[j] - mean / total));
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
