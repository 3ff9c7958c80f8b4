// SPDX-License-Identifier: MIT
// TokenBatch: sequences of tokens one after the other, without padding.
#pragma once

#include "mole/core/config.hpp"

#include <span>
#include <vector>

namespace encoder {

/// Row n of all activations is token n of the batch. There is no padding: a short sequence costs its own tokens alone,
/// and what others hold cannot reach it.
struct TokenBatch {
  std::vector<int> tokens;
  std::vector<mole::Index> begin;  // first token of each sequence

  mole::Index rows() const { return mole::Index(tokens.size()); }
  mole::Index sequences() const { return mole::Index(begin.size()); }
  mole::Index first(mole::Index sequence) const { return begin[std::size_t(sequence)]; }
  mole::Index length(mole::Index sequence) const {
    const mole::Index end = sequence + 1 < sequences() ? begin[std::size_t(sequence + 1)] : rows();
    return end - first(sequence);
  }

  void add(std::span<const int> sequence) {
    begin.push_back(rows());
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
  }
  void clear() {
    tokens.clear();
    begin.clear();
  }
};

}  // namespace encoder
