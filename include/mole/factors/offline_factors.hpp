// SPDX-License-Identifier: MIT
// OfflineFactors: A and B outside of a layer's calls, for merging and surgery.
#pragma once

#include "mole/core/scratch.hpp"
#include "mole/execution/serial.hpp"
#include "mole/factors/factor_calls.hpp"

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// A and B of `factors`, computed once, in memory of their own. Refers to `factors`.
template <FactorPolicy Factors>
class OfflineFactors {
 public:
  using T = typename Factors::Scalar;

  explicit OfflineFactors(const Factors& factors) : factors_(factors), scratch_(factors, CallSize{}) {
    const Serial serial;
    const Pass pass;
    prepare(factors, Call{serial, pass, *scratch_});
  }

  FactorViews<const T> views() { return factors_.factors(*scratch_); }

  /// to += factor * row `rank` of A
  void add_row(Index rank, T factor, std::span<T> to) {
    if constexpr (StreamedFactorPolicy<Factors>) {
      factors_.add_row(rank, factor, to, *scratch_);
    } else {
      const std::span<const T> row = views().a.row(rank);
      for (std::size_t i = 0; i < row.size(); ++i) to[i] += factor * row[i];
    }
  }

 private:
  const Factors& factors_;
  OwnedScratch<Factors> scratch_;
};

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
