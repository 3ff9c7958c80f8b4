// SPDX-License-Identifier: MIT
// FrozenLayer: the weight that all layers of one size share.
#pragma once

#include "mole/base/packed_base.hpp"
#include "tests/support/random_matrix.hpp"

#include <map>

namespace bench {

/// A random weight [d x d], plain and packed.
struct FrozenLayer {
  explicit FrozenLayer(mole::Index d) : weight(support::random_matrix<float>(d, d, 3)), base(weight) {}

  /// Made once a process, since packing a large weight takes longer than many measurements.
  static const FrozenLayer& of(mole::Index d) {
    static std::map<mole::Index, FrozenLayer> known;
    return known.try_emplace(d, d).first->second;
  }

  mole::Matrix<float> weight;
  mole::PackedBase<float> base;
};

}  // namespace bench
