// SPDX-License-Identifier: MIT
#include "route/observer.hpp"

#include <algorithm>
#include <cmath>

namespace route {

Observer::Observer(training::Adapter& adapter, std::size_t domains, std::size_t piece_size)
    : adapter_(adapter), piece_size_(piece_size) {
  for (std::size_t i = 0; i < adapter.size(); ++i) {
    const mole::Trace<float>& trace = adapter.layer(i).trace();
    layers_.push_back({.name = adapter.name_of(i),
                       .shared = trace.shared(),
                       .stats = mole::RoutingStats(trace.scored_experts()),
                       .by_domain = adapt::CountMatrix(std::size_t(trace.experts()), domains),
                       .added = {},
                       .pieces = std::vector<Piece>(domains)});
    if (adapter.layer(i).pairs_add_up()) layers_[i].added.resize(std::size_t(trace.experts()));
  }
  for (std::size_t i = 0; i < adapter.size(); ++i)
    adapter.adapted(i).watch([this, i](mole::AnyLinear<float>& layer, mole::View<const float> x,
                                       const mole::Pass& pass) { observe(layers_[i], layer, x, pass); });
}

Observer::~Observer() {
  for (std::size_t i = 0; i < adapter_.size(); ++i) adapter_.adapted(i).watch({});
}

void Observer::observe(LayerRecord& record, mole::AnyLinear<float>& layer, mole::View<const float> x,
                       const mole::Pass& pass) {
  const mole::Trace<float>& trace = layer.trace();
  const mole::Routing<float>& routing = trace.routing;
  const std::size_t domain = batch_->domains.front();
  record.stats.observe(trace);
  std::optional<mole::Attribution> parts;
  if (layer.pairs_add_up()) parts = mole::attribution(layer, x, routing, pass);
  for (mole::Index p = 0; p < routing.pairs(); ++p) {
    const auto e = std::size_t(routing.expert(p));
    record.by_domain(e, domain) += std::abs(double(routing.gate(p)));
    if (parts) record.added[e] += parts->norm[std::size_t(p)];
  }
  Piece& piece = record.pieces[domain];
  piece.bytes.assign(batch_->inputs.begin(), batch_->inputs.begin() + std::ptrdiff_t(piece_size_));
  piece.parts.assign(piece_size_, {});
  for (std::size_t n = 0; n < piece_size_; ++n) {
    const mole::Index first = routing.first_pair(mole::Index(n)), end = routing.first_pair(mole::Index(n) + 1);
    for (mole::Index p = first; p < end; ++p)
      piece.parts[n].push_back({routing.expert(p), double(routing.gate(p)), parts ? parts->share[std::size_t(p)] : 0});
    std::stable_sort(piece.parts[n].begin(), piece.parts[n].end(),
                     [](const Part& a, const Part& b) { return std::abs(a.gate) > std::abs(b.gate); });
  }
}

}  // namespace route
