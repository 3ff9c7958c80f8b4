// SPDX-License-Identifier: MIT
// Retrieval: how often a query finds its own answer.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/execution/simd.hpp"

#include <algorithm>
#include <vector>

namespace encoder {

struct Retrieval {
  double recall_1 = 0, recall_10 = 0, mrr = 0;  // means over queries; mrr of 1 / rank
};

/// Rank of each query's own answer among all: 1 plus the answers with a larger product, or the same and a lower number.
///   queries, answers [P x W]
inline std::vector<mole::Index> ranks_of(mole::View<const float> queries, mole::View<const float> answers) {
  std::vector<mole::Index> ranks;
  mole::Matrix<float> products(1, answers.rows());
  for (mole::Index q = 0; q < queries.rows(); ++q) {
    mole::Simd<>{}.product_nt<float>(queries.middle_rows(q, 1), answers, products.view());
    const float own = products(0, q);
    mole::Index rank = 1;
    for (mole::Index a = 0; a < answers.rows(); ++a) rank += products(0, a) > own || (products(0, a) == own && a < q);
    ranks.push_back(rank);
  }
  return ranks;
}

inline Retrieval retrieval_of(const std::vector<mole::Index>& ranks) {
  Retrieval result;
  for (mole::Index rank : ranks) {
    result.recall_1 += rank <= 1;
    result.recall_10 += rank <= 10;
    result.mrr += 1 / double(rank);
  }
  const double count = double(std::max<std::size_t>(ranks.size(), 1));
  return {result.recall_1 / count, result.recall_10 / count, result.mrr / count};
}

}  // namespace encoder
