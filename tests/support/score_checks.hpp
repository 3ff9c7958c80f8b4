// SPDX-License-Identifier: MIT
// Finite differences of one Score or one Weigh.
#pragma once

#include "mole/core/config.hpp"
#include "support/random_matrix.hpp"

#include <vector>

namespace support {

/// Largest difference between score.backward and central differences of <scores, upstream>, over random logits.
template <class Score>
double score_gradient_error(const Score& score, mole::Index experts, double bound = 2) {
  const auto logits = random_matrix<double>(1, experts, 51, bound), upstream = random_matrix<double>(1, experts, 52);
  const std::span<const double> d_scores = upstream.elements();
  std::vector<double> at(logits.elements().begin(), logits.elements().end());
  std::vector<double> scores(at.size()), d_logits(at.size(), 0.5);  // backward accumulates
  const auto value = [&] {
    std::vector<double> s(at.size());
    score.forward(std::span<const double>(at), std::span<double>(s));
    double sum = 0;
    for (std::size_t e = 0; e < s.size(); ++e) sum += s[e] * d_scores[e];
    return sum;
  };
  score.forward(std::span<const double>(at), std::span<double>(scores));
  score.backward(std::span<const double>(at), std::span<const double>(scores), d_scores, std::span<double>(d_logits));
  double worst = 0;
  for (std::size_t e = 0; e < at.size(); ++e) {
    const double before = at[e];
    at[e] = before + 1e-6;
    const double above = value();
    at[e] = before - 1e-6;
    const double below = value();
    at[e] = before;
    worst = std::max(worst, std::abs((above - below) / 2e-6 - (d_logits[e] - 0.5)));
  }
  return worst;
}

/// The same for a Weigh over some chosen experts; scores off the chosen must not receive a gradient.
template <class Weigh>
double weigh_gradient_error(const Weigh& weigh, mole::Index experts, const std::vector<int>& chosen) {
  auto scores = random_matrix<double>(1, experts, 53);
  for (double& score : scores.elements()) score = std::abs(score) + 0.1;
  const auto upstream = random_matrix<double>(1, mole::Index(chosen.size()), 54);
  std::vector<double> weights(chosen.size()), d_scores(std::size_t(experts), 0.5);
  const auto value = [&] {
    std::vector<double> w(chosen.size());
    weigh.forward(std::span<const double>(scores.elements()), std::span<const int>(chosen), std::span<double>(w));
    double sum = 0;
    for (std::size_t j = 0; j < w.size(); ++j) sum += w[j] * upstream.elements()[j];
    return sum;
  };
  weigh.forward(std::span<const double>(scores.elements()), std::span<const int>(chosen), std::span<double>(weights));
  weigh.backward(std::span<const double>(scores.elements()), std::span<const int>(chosen),
                 std::span<const double>(weights), std::span<const double>(upstream.elements()),
                 std::span<double>(d_scores));
  double worst = 0;
  for (std::size_t e = 0; e < d_scores.size(); ++e) {
    double& score = scores.elements()[e];
    const double before = score;
    score = before + 1e-6;
    const double above = value();
    score = before - 1e-6;
    const double below = value();
    score = before;
    worst = std::max(worst, std::abs((above - below) / 2e-6 - (d_scores[e] - 0.5)));
  }
  return worst;
}

}  // namespace support
