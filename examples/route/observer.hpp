// SPDX-License-Identifier: MIT
// Observer: what the experts of an adapter do while a model reads text.
#pragma once

#include "adapt/count_matrix.hpp"
#include "mole/stats/attribution.hpp"
#include "mole/stats/routing_stats.hpp"
#include "training/adapter.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace route {

/// One expert of a byte.
struct Part {
  int expert;
  double gate;
  double share;  // of what all experts add to the byte; 0 where the layer cannot tell
};

/// A piece of a domain's text, and the experts of each of its bytes, those with the largest gates first.
struct Piece {
  std::vector<std::uint8_t> bytes;
  std::vector<std::vector<Part>> parts;
};

struct LayerRecord {
  std::string name;
  mole::Index shared = 0;        // the last experts, which serve every token
  mole::RoutingStats stats;      // of the others
  adapt::CountMatrix by_domain;  // gates of all experts
  std::vector<double> added;     // the lengths of what each expert adds, summed; empty where the layer cannot tell
  std::vector<Piece> pieces;     // one of each domain
};

/// Watches the layers of `adapter`, which it borrows, as long as it lives.
class Observer {
 public:
  Observer(training::Adapter& adapter, std::size_t domains, std::size_t piece_size);
  ~Observer();
  Observer(const Observer&) = delete;

  /// The next forward reads `batch`, of one domain. Its beginning becomes the piece of that domain.
  void start(const text::Batch& batch) { batch_ = &batch; }

  const std::vector<LayerRecord>& layers() const { return layers_; }

 private:
  void observe(LayerRecord& record, mole::AnyLinear<float>& layer, mole::View<const float> x, const mole::Pass& pass);

  training::Adapter& adapter_;
  std::size_t piece_size_;
  std::vector<LayerRecord> layers_;
  const text::Batch* batch_ = nullptr;
};

}  // namespace route
