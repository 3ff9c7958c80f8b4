// SPDX-License-Identifier: MIT
#include "training/evaluation.hpp"

#include <algorithm>
#include <chrono>
#include <numbers>
#include <stdexcept>
#include <string>

namespace training {
namespace {

text::Batch part_of(const text::Batch& whole, std::size_t first, std::size_t count, std::size_t context) {
  text::Batch part;
  const auto begin = std::ptrdiff_t(first * context), end = std::ptrdiff_t((first + count) * context);
  part.inputs.assign(whole.inputs.begin() + begin, whole.inputs.begin() + end);
  part.targets.assign(whole.targets.begin() + begin, whole.targets.begin() + end);
  part.domains.assign(count, whole.domains.front());
  return part;
}

}  // namespace

Evaluation::Evaluation(const std::vector<text::Domain>& domains, std::size_t context, std::size_t most)
    : domains_(domains.size()) {
  for (std::size_t d = 0; d < domains.size(); ++d) {
    const text::Batch windows = text::evaluation_windows(domains, d, most, context);
    if (windows.sequences() == 0)
      throw std::runtime_error(domains[d].name + ": expected held-out text of at least " + std::to_string(context + 1) +
                               " bytes, found " + std::to_string(domains[d].held_out.size()));
    for (std::size_t first = 0; first < windows.sequences(); first += windows_per_batch)
      batches_.push_back(part_of(windows, first, std::min(windows_per_batch, windows.sequences() - first), context));
  }
}

DomainBits Evaluation::bits(Model& model, Adapter* adapter, const AfterBatch& after_batch) const {
  DomainBits nats(domains_);
  std::vector<double> bytes(domains_);
  for (const text::Batch& batch : batches_) {
    if (adapter != nullptr) adapter->start_evaluation(batch);
    model.loss(batch.inputs, batch.targets);
    const std::size_t domain = batch.domains.front();
    for (const double loss : model.token_losses()) nats[domain] += loss;
    bytes[domain] += double(batch.inputs.size());
    after_batch(batch);
  }
  for (std::size_t d = 0; d < domains_; ++d) nats[d] /= bytes[d] * std::numbers::ln2;
  return nats;
}

double Evaluation::forward_seconds(Model& model, Adapter* adapter) const {
  if (adapter != nullptr) adapter->start_evaluation(batches_.front());
  const auto start = std::chrono::steady_clock::now();
  model.loss(batches_.front().inputs, batches_.front().targets);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace training
