// SPDX-License-Identifier: MIT
#include "adapt/routing_counts.hpp"

#include "adapt/byte_class.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace adapt {
namespace {

/// Of a token's scores as shares of their sum, over that of equal shares; negative scores are none.
double entropy_of(std::span<const float> scores) {
  double sum = 0, entropy = 0;
  for (const float score : scores) sum += std::max(0.0, double(score));
  if (scores.size() < 2 || !(sum > 0)) return 0;
  for (const float score : scores)
    if (score > 0) entropy -= double(score) / sum * std::log(double(score) / sum);
  return entropy / std::log(double(scores.size()));
}

/// Gates of the layer that are not 0; -1 where it has none.
mole::Index open_gates(mole::AnyLinear<float>& layer) {
  mole::Index open = -1;
  layer.for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float>) {
    if (!name.ends_with(".gate")) return;
    const auto gates = parameter.row(0);
    open = std::count_if(gates.begin(), gates.end(), [](float gate) { return gate != 0; });
  });
  return open;
}

}  // namespace

RoutingCounts::RoutingCounts(training::Adapter& adapter, std::size_t domains)
    : adapter_(adapter), pairs_(adapter.size()) {
  counts_.name = adapter.method().title;
  for (std::size_t i = 0; i < adapter.size(); ++i) {
    const auto experts = std::size_t(adapter.layer(i).trace().experts());
    counts_.layers.push_back({.name = adapter.name_of(i),
                              .load = std::vector<double>(experts),
                              .mean_entropy = 0,
                              .by_domain = CountMatrix(experts, domains),
                              .by_byte_class = CountMatrix(experts, byte_class_names.size())});
  }
}

void RoutingCounts::add(const text::Batch& batch) {
  tokens_ += double(batch.inputs.size());
  for (std::size_t i = 0; i < adapter_.size(); ++i) add_layer(i, batch);
}

void RoutingCounts::add_layer(std::size_t i, const text::Batch& batch) {
  const mole::Trace<float>& trace = adapter_.layer(i).trace();
  const auto& routing = trace.routing;
  LayerRouting& layer = counts_.layers[i];
  pairs_[i] += double(routing.pairs());
  for (mole::Index p = 0; p < routing.pairs(); ++p) {
    const auto e = std::size_t(routing.expert(p));
    const double weight = routing.gate(p);
    layer.load[e] += weight;
    layer.by_domain(e, batch.domains.front()) += weight;
    layer.by_byte_class(e, std::size_t(byte_class(batch.inputs[std::size_t(routing.token(p))]))) += weight;
  }
  for (mole::Index n = 0; n < trace.tokens(); ++n)
    layer.mean_entropy += entropy_of(trace.scores().row(n).first(std::size_t(trace.scored_experts())));
}

MethodRouting RoutingCounts::routing() const {
  MethodRouting routing = counts_;
  for (LayerRouting& layer : routing.layers) {
    layer.mean_entropy /= tokens_;
    const double total = std::accumulate(layer.load.begin(), layer.load.end(), 0.0);
    for (double& load : layer.load) load /= total;
  }
  return routing;
}

double RoutingCounts::active_parameters() const {
  double active = 0;
  for (std::size_t i = 0; i < adapter_.size(); ++i) {
    const training::Touched touched = adapter_.method().touched(adapter_.site(i));
    const mole::Index gates = open_gates(adapter_.layer(i));
    active += double(touched.always) + double(touched.each) * (gates >= 0 ? double(gates) : pairs_[i] / tokens_);
  }
  return active;
}

}  // namespace adapt
