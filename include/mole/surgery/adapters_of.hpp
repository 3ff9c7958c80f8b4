// SPDX-License-Identifier: MIT
// adapters_of(): the experts of a layer as adapters of their own.
#pragma once

#include "mole/surgery/weighted_adapter.hpp"

#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// One Adapter for each expert of LowRank experts over any factors, with its scale: their A and B are computed, a rank
/// gate becomes part of B, and an A that several experts share is repeated.
///
/// Error: only the rounding of a rank gate times b. Copies.  Offline.
template <class Experts>
requires requires(const Experts& experts) {
  experts.tables();
  experts.blocks();
  experts.scale();
}
auto adapters_of(const Experts& experts) {
  using T = typename Experts::Scalar;
  const auto tables = experts.tables();
  std::vector<Adapter<T>> adapters;
  for (Index e = 0; e < experts.experts(); ++e) {
    const Index ranks = experts.blocks().size(e);
    Adapter<T> adapter{Matrix<T>(ranks, experts.in()), Matrix<T>(ranks, experts.out()),
                       double(experts.scale()[std::size_t(e)])};
    copy(tables.a.view().middle_rows(experts.blocks().down(e), ranks), adapter.a.view());
    copy(tables.b.view().middle_rows(experts.blocks().up(e), ranks), adapter.b.view());
    adapters.push_back(std::move(adapter));
  }
  return adapters;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
