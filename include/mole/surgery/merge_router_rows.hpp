// SPDX-License-Identifier: MIT
// merge_router_rows(): a linear router for merged experts.
#pragma once

#include "mole/core/matrix_products.hpp"
#include "mole/surgery/shares_of.hpp"

#include <algorithm>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The rows of a linear router for the merged experts: the mean of the rows of each cluster, weighted by their counts.
///
///   rows [E x I], label [E], counts [E]   ->   [clusters x I], clusters = the largest label + 1; 0 for an empty one
///
/// A mean of rows is not what all rows together did: a token that one expert wanted wants the merged one less. Train
/// the router afterwards, or keep all rows and let several lead to one expert. Throws Error(shape) for other numbers of
/// labels or counts, Error(option) for a label that is not one of 0 to E - 1, or a count that is negative or no number.
/// Source: zhy617/SMoE, merge_experts.py.
template <class T>
Matrix<T> merge_router_rows(View<const T> rows, const std::vector<int>& label, const std::vector<double>& counts) {
  require_equal(ErrorCode::shape, "merge_router_rows: labels", rows.rows(), Index(label.size()));
  require_equal(ErrorCode::shape, "merge_router_rows: counts", rows.rows(), Index(counts.size()));
  int clusters = 0;
  for (const int c : label) {
    require(c >= 0 && std::size_t(c) < label.size(), ErrorCode::option, "merge_router_rows: expected labels from 0 to ",
            label.size() - 1, ", found ", c);
    clusters = std::max(clusters, c + 1);
  }
  Matrix<double> merged(clusters, rows.cols());
  for (int c = 0; c < clusters; ++c) {
    std::vector<double> own;
    for (std::size_t e = 0; e < label.size(); ++e)
      if (label[e] == c) own.push_back(counts[e]);
    if (own.empty()) continue;
    const std::vector<double> shares = shares_of(own);
    std::size_t at = 0;
    for (std::size_t e = 0; e < label.size(); ++e) {
      if (label[e] != c) continue;
      for (Index i = 0; i < rows.cols(); ++i) merged(c, i) += shares[at] * double(rows(Index(e), i));
      ++at;
    }
  }
  return detail::converted<T>(View<const double>(merged));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
