// SPDX-License-Identifier: MIT
// gather_ranks(), scatter_ranks(): between the latent of all ranks and the ranks of routed pairs.
#pragma once

#include "mole/core/rank/rank_layout.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// h_p = the ranks of the expert of pair p in the latent of its token.   latent [N x ranks], h [ranks of all pairs]
template <class T>
void gather_ranks(View<const T> latent, const RankLayout<T>& layout, std::span<T> h) {
  for (Index p = 0; p < layout.routing.pairs(); ++p) {
    const Index down = layout.blocks.down(layout.routing.expert(p));
    for (Index j = 0; j < layout.ranks(p); ++j)
      h[std::size_t(layout.first(p) + j)] = latent(layout.routing.token(p), down + j);
  }
}

/// d_z += d_h, each number at its rank; those of experts that share ranks add up. Returns d_z.
template <class T>
View<const T> scatter_ranks(std::span<const T> d_h, const RankLayout<T>& layout, View<T> d_z) {
  for (Index p = 0; p < layout.routing.pairs(); ++p) {
    const Index down = layout.blocks.down(layout.routing.expert(p));
    for (Index j = 0; j < layout.ranks(p); ++j)
      d_z(layout.routing.token(p), down + j) += d_h[std::size_t(layout.first(p) + j)];
  }
  return d_z;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
