// SPDX-License-Identifier: MIT
// LayerCost: operations and bytes of a layer, counted rather than measured.
#pragma once

#include "bench/machine/work.hpp"
#include "mole/core/config.hpp"

namespace bench {

using mole::Index;

/// Numbers of parameters that one token meets, and that the whole batch meets, in a layer of d inputs and d outputs.
/// A parameter is two operations a token in forward; in backward the base gives d_x, a trained parameter d_x and its
/// own gradient, a frozen one of an adapter d_x alone.
struct LayerCost {
  Index tokens = 0, d = 0;
  double trained = 0;  ///< the router's and those of the token's experts; numbers of A that are 0 do not count
  double frozen = 0;   ///< of the token's experts, if their A does not learn
  double met = 0;      ///< by all tokens, each parameter once

  double base() const { return double(d) * double(d); }
  double activations() const { return double(tokens) * double(d); }

  Work forward() const {
    return {double(tokens), 2.0 * double(tokens) * (base() + trained + frozen),
            sizeof(float) * (base() + met + 2 * activations())};
  }
  Work forward_backward() const {
    return {double(tokens), 2.0 * double(tokens) * (2 * base() + 3 * trained + 2 * frozen),
            sizeof(float) * (2 * base() + 4 * met + 6 * activations())};
  }

  LayerCost plain() const { return {tokens, d}; }
};

}  // namespace bench
