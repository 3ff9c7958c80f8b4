// SPDX-License-Identifier: MIT
// BalancedHash: a fixed expert for each token id, such that all experts serve about as many tokens.
#pragma once

#include "mole/core/error.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A table from token ids to experts that gives all experts about the same share of a corpus: ids, the most frequent
/// first, each go to the expert with the smallest load so far, ties to the lower one.
///
/// Throws Error(option) for less than 1 expert, a frequency below 0 or not finite, or an id out of the table.
/// Source: Roller et al. 2021 (Hash layers), arXiv:2106.04426, "balanced assignment".
class BalancedHash {
 public:
  /// frequencies: of each id, counts or shares.  O(V log V + V E)
  BalancedHash(std::span<const double> frequencies, Index experts) : table_(frequencies.size()) {
    require(experts >= 1, ErrorCode::option, "BalancedHash: expected at least 1 expert, found ", experts);
    for (double frequency : frequencies)
      require(frequency >= 0 && frequency < std::numeric_limits<double>::infinity(), ErrorCode::option,
              "BalancedHash: expected frequencies of at least 0, found ", frequency);
    std::vector<std::size_t> order(frequencies.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::ranges::stable_sort(order, std::greater(), [&](std::size_t id) { return frequencies[id]; });
    std::vector<double> loads(static_cast<std::size_t>(experts));
    for (std::size_t id : order) {
      const auto least = std::ranges::min_element(loads);
      table_[id] = int(least - loads.begin());
      *least += frequencies[id];
    }
  }

  int operator()(int id) const {
    require(id >= 0 && std::size_t(id) < table_.size(), ErrorCode::option, "BalancedHash: expected ids from 0 to ",
            Index(table_.size()) - 1, ", found ", id);
    return table_[std::size_t(id)];
  }
  std::vector<int> labels(std::span<const int> ids) const {
    std::vector<int> labels;
    for (int id : ids) labels.push_back((*this)(id));
    return labels;
  }

 private:
  std::vector<int> table_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
