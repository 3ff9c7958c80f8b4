// SPDX-License-Identifier: MIT
#include "adapt/evaluation.hpp"

#include "adapt/byte_class.hpp"

#include <chrono>
#include <cmath>
#include <numbers>

namespace adapt {
namespace {

constexpr std::size_t windows_per_domain = 96, windows_per_batch = 16;

Batch part_of(const Batch& whole, std::size_t first, std::size_t count, std::size_t context) {
  Batch part;
  const auto begin = std::ptrdiff_t(first * context), end = std::ptrdiff_t((first + count) * context);
  part.inputs.assign(whole.inputs.begin() + begin, whole.inputs.begin() + end);
  part.targets.assign(whole.targets.begin() + begin, whole.targets.begin() + end);
  part.domains.assign(count, whole.domains.front());
  return part;
}

/// Adds the gates' weights of one batch to the counts of a layer.
void count_routing(const mole::Trace<float>& trace, const Batch& batch, LayerRouting& layer, double& entropy) {
  const auto& routing = trace.routing;
  for (mole::Index p = 0; p < routing.pairs(); ++p) {
    const auto e = std::size_t(routing.expert(p));
    const double weight = routing.weight(p);
    layer.load[e] += weight;
    layer.by_domain(e, batch.domains.front()) += weight;
    layer.by_byte_class(e, std::size_t(byte_class(batch.inputs[std::size_t(routing.token(p))]))) += weight;
  }
  const double most = std::log(double(trace.experts()));
  for (mole::Index n = 0; n < trace.tokens(); ++n)
    for (const float score : trace.scores().row(n))
      if (score > 0) entropy -= double(score) * std::log(double(score)) / most;
}

}  // namespace

Evaluation::Evaluation(const std::vector<Domain>& domains, std::size_t context) : domains_(domains.size()) {
  for (std::size_t d = 0; d < domains.size(); ++d) {
    const Batch windows = evaluation_windows(domains, d, windows_per_domain, context);
    if (windows.sequences() == 0)
      throw std::runtime_error(domains[d].name + ": expected held-out text of at least " + std::to_string(context + 1) +
                               " bytes, found " + std::to_string(domains[d].held_out.size()));
    for (std::size_t first = 0; first < windows.sequences(); first += windows_per_batch)
      batches_.push_back(part_of(windows, first, std::min(windows_per_batch, windows.sequences() - first), context));
  }
}

template <class AfterBatch>
DomainBits Evaluation::score(host::Transformer<float>& model, AfterBatch after_batch) const {
  DomainBits nats(domains_);
  std::vector<double> bytes(domains_);
  for (const Batch& batch : batches_) {
    model.loss(batch.inputs, batch.targets);
    const std::size_t domain = batch.domains.front();
    for (const double loss : model.token_losses()) nats[domain] += loss;
    bytes[domain] += double(batch.inputs.size());
    after_batch(batch);
  }
  for (std::size_t d = 0; d < domains_; ++d) nats[d] /= bytes[d] * std::numbers::ln2;
  return nats;
}

DomainBits Evaluation::bits(host::Transformer<float>& model) const {
  return score(model, [](const Batch&) {});
}

DomainBits Evaluation::bits(host::Transformer<float>& model, Adapter& adapter, MethodRouting& routing) const {
  std::vector<double> entropy(adapter.size());
  double tokens = 0;
  for (std::size_t i = 0; i < adapter.size(); ++i) {
    const auto experts = std::size_t(adapter.layer(i).layer().trace().experts());
    routing.layers.push_back({.name = adapter.name_of(i),
                              .load = std::vector<double>(experts),
                              .mean_entropy = 0,
                              .by_domain = CountMatrix(experts, domains_),
                              .by_byte_class = CountMatrix(experts, byte_class_names.size())});
  }
  const DomainBits bits = score(model, [&](const Batch& batch) {
    tokens += double(batch.inputs.size());
    for (std::size_t i = 0; i < adapter.size(); ++i)
      count_routing(adapter.layer(i).layer().trace(), batch, routing.layers[i], entropy[i]);
  });
  for (std::size_t i = 0; i < adapter.size(); ++i) {
    LayerRouting& layer = routing.layers[i];
    layer.mean_entropy = entropy[i] / tokens;
    double total = 0;
    for (const double load : layer.load) total += load;
    for (double& load : layer.load) load /= total;
  }
  return bits;
}

double Evaluation::forward_seconds(host::Transformer<float>& model) const {
  const auto start = std::chrono::steady_clock::now();
  model.loss(batches_.front().inputs, batches_.front().targets);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace adapt
