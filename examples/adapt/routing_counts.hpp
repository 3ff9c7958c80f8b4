// SPDX-License-Identifier: MIT
// RoutingCounts: what the routers of an adapter do while a model is evaluated.
#pragma once

#include "adapt/report.hpp"
#include "text/batch_sampler.hpp"
#include "training/adapter.hpp"

#include <vector>

namespace adapt {

/// Counts, batch by batch; each batch is of one domain.
class RoutingCounts {
 public:
  RoutingCounts(training::Adapter& adapter, std::size_t domains);

  /// After a forward pass of the attached adapter over `batch`.
  void add(const text::Batch& batch);

  /// Loads as shares, entropies as means over the tokens seen.
  MethodRouting routing() const;

  /// Parameters of the adapter that a token touched, on average over the tokens seen. A gate of 0 closes its rank.
  double active_parameters() const;

 private:
  void add_layer(std::size_t layer, const text::Batch& batch);

  training::Adapter& adapter_;
  MethodRouting counts_;
  std::vector<double> pairs_;  // of token and expert, in each layer
  double tokens_ = 0;
};

}  // namespace adapt
