// SPDX-License-Identifier: MIT
// tensor_similarity(), diverse_groups(): adapters that are least alike, to start a mixture with.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The sum over tensors of |cosine| of the tensors of two adapters, each as one vector.
///
///   adapters: for each the same number of tensors, such as A and B of every layer, of the same shapes for all
///   ->   [adapters x adapters], the number of tensors on the diagonal
///
/// It does not see signs, nor positive factors. A tensor of zeros has cosine 0 with all, itself too.
/// Throws Error(option) for no adapter, Error(shape) for tensors that do not correspond.
/// Source: Yang et al. 2024 (Rocket), arXiv:2408.15915, as released in Yaphabates/Rocket, group_diversity.py.
template <class T>
Matrix<double> tensor_similarity(const std::vector<std::vector<View<const T>>>& adapters) {
  require(!adapters.empty(), ErrorCode::option, "tensor_similarity: expected at least 1 adapter, found none");
  for (const auto& adapter : adapters) {
    require_equal(ErrorCode::shape, "tensor_similarity: tensors of an adapter", adapters[0].size(), adapter.size());
    for (std::size_t t = 0; t < adapter.size(); ++t)
      require(adapter[t].rows() == adapters[0][t].rows() && adapter[t].cols() == adapters[0][t].cols(),
              ErrorCode::shape, "tensor_similarity: tensor ", t, ": expected [", adapters[0][t].rows(), " x ",
              adapters[0][t].cols(), "], found [", adapter[t].rows(), " x ", adapter[t].cols(), "]");
  }
  const auto product = [](View<const T> a, View<const T> b) {
    double sum = 0;
    for (Index r = 0; r < a.rows(); ++r)
      for (Index c = 0; c < a.cols(); ++c) sum += double(a(r, c)) * double(b(r, c));
    return sum;
  };
  const Index count = Index(adapters.size());
  Matrix<double> similarity(count, count);
  for (std::size_t t = 0; t < adapters[0].size(); ++t) {
    std::vector<double> length;
    for (const auto& adapter : adapters) length.push_back(std::sqrt(product(adapter[t], adapter[t])));
    for (std::size_t i = 0; i < adapters.size(); ++i)
      for (std::size_t j = 0; j < adapters.size(); ++j)
        if (length[i] > 0 && length[j] > 0)
          similarity(Index(i), Index(j)) += std::abs(product(adapters[i][t], adapters[j][t])) / length[i] / length[j];
  }
  return similarity;
}

/// Members, ascending, and the sum of the similarities of their pairs.
struct DiverseGroup {
  std::vector<int> members;
  double score = 0;
};

/// The `count` groups of `size` members of the lowest scores, lowest first, by a search of all groups; equal ones in
/// the order of their members.   similarity [A x A], of which the upper triangle is read
///
/// Throws Error(shape) for a matrix that is not square, Error(option) for numbers that are not finite, sizes out of
/// range, and more than ten million groups: 38 adapters in groups of 4 are 73,815.
template <class T>
std::vector<DiverseGroup> diverse_groups(View<const T> similarity, Index size, Index count = 1) {
  const Index all = similarity.rows();
  require_equal(ErrorCode::shape, "diverse_groups: columns of the similarity", all, similarity.cols());
  require(size >= 1 && size <= all, ErrorCode::option, "diverse_groups: expected groups of 1 to ", all, ", found ",
          size);
  require(count >= 1, ErrorCode::option, "diverse_groups: expected a count of at least 1, found ", count);
  double groups = 1;
  for (Index i = 0; i < size; ++i) groups = groups * double(all - i) / double(i + 1);
  require(groups <= 1e7, ErrorCode::option, "diverse_groups: expected at most 10000000 groups, found ", groups);
  for (Index i = 0; i < all; ++i)
    for (Index j = i + 1; j < all; ++j)
      require(std::isfinite(similarity(i, j)), ErrorCode::option,
              "diverse_groups: expected finite similarities, found ", double(similarity(i, j)));

  std::vector<DiverseGroup> best;
  std::vector<int> members(std::size_t(size), 0);
  std::iota(members.begin(), members.end(), 0);
  for (;;) {
    double score = 0;
    for (std::size_t i = 0; i < members.size(); ++i)
      for (std::size_t j = i + 1; j < members.size(); ++j) score += double(similarity(members[i], members[j]));
    const auto place =
        std::upper_bound(best.begin(), best.end(), score, [](double s, const DiverseGroup& g) { return s < g.score; });
    if (Index(best.size()) < count || place != best.end()) best.insert(place, {members, score});
    if (Index(best.size()) > count) best.pop_back();
    Index last = size - 1;  // the next group in lexicographic order
    while (last >= 0 && members[std::size_t(last)] == int(all - size + last)) --last;
    if (last < 0) return best;
    std::iota(members.begin() + last, members.end(), members[std::size_t(last)] + 1);
  }
}
template <class T>
std::vector<DiverseGroup> diverse_groups(const Matrix<T>& similarity, Index size, Index count = 1) {
  return diverse_groups(similarity.view(), size, count);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
