// SPDX-License-Identifier: MIT
// BenchLayer: a layer with everything that a call of it needs.
#pragma once

#include "bench/layers/layer_case.hpp"
#include "bench/layers/layer_cost.hpp"

#include <functional>

namespace bench {

/// Calls of one layer on tensors of its own; copies share them. Gradients are added to what earlier calls left.
struct BenchLayer {
  std::function<void()> forward;
  std::function<void()> apply;  ///< forward without routing: that of the last forward is taken
  std::function<void()> forward_backward;
  LayerCost cost;  ///< with the experts that the routing really chose
};

/// T = `tokens` tokens, d inputs and outputs. One thread: the default execution; more: a ThreadPool of its own.
BenchLayer bench_layer(const LayerCase& one, Index tokens, Index d, int threads = 1);

}  // namespace bench
