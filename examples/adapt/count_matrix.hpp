// SPDX-License-Identifier: MIT
#pragma once

// Counts of experts by groups of tokens, and how much of the routing the groups explain.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace adapt {

/// counts(e, g): the gates' weight that tokens of group g gave to expert e.
struct CountMatrix {
  std::size_t experts = 0;
  std::size_t groups = 0;
  std::vector<double> counts;  // [experts * groups], one expert after the other

  CountMatrix() = default;
  CountMatrix(std::size_t expert_count, std::size_t group_count)
      : experts(expert_count), groups(group_count), counts(expert_count * group_count) {}

  double& operator()(std::size_t e, std::size_t g) { return counts[e * groups + g]; }
  double operator()(std::size_t e, std::size_t g) const { return counts[e * groups + g]; }
};

/// I(expert; group) / H(expert): the share of the entropy of the choice of an expert that knowing the group removes.
///
/// 0 when experts are chosen without regard to the group, 1 when the group determines the expert; 0 too when there is
/// no choice, that is, when one expert takes everything or there are no counts.
inline double explained_share(const CountMatrix& m) {
  std::vector<double> by_expert(m.experts), by_group(m.groups);
  double total = 0;
  for (std::size_t e = 0; e < m.experts; ++e) {
    for (std::size_t g = 0; g < m.groups; ++g) {
      by_expert[e] += m(e, g);
      by_group[g] += m(e, g);
      total += m(e, g);
    }
  }
  if (total <= 0) return 0;
  double entropy = 0;
  double information = 0;
  for (std::size_t e = 0; e < m.experts; ++e) {
    if (by_expert[e] > 0) entropy -= by_expert[e] / total * std::log(by_expert[e] / total);
    for (std::size_t g = 0; g < m.groups; ++g) {
      if (m(e, g) > 0) information += m(e, g) / total * std::log(m(e, g) * total / (by_expert[e] * by_group[g]));
    }
  }
  return entropy > 1e-12 ? std::clamp(information / entropy, 0.0, 1.0) : 0.0;
}

}  // namespace adapt
