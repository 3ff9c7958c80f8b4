// SPDX-License-Identifier: MIT
// What a model and its routers do on held-out text, and how fast.
#pragma once

#include "adapt/adapter.hpp"
#include "adapt/batch_sampler.hpp"
#include "adapt/report.hpp"

#include <vector>

namespace adapt {

/// Held-out bits per byte of each domain.
using DomainBits = std::vector<double>;

/// The held-out windows of all domains, and how to score a model on them.
class Evaluation {
 public:
  Evaluation(const std::vector<Domain>& domains, std::size_t context);

  DomainBits bits(host::Transformer<float>& model) const;

  /// The same, and what the routers of `adapter` did meanwhile. The adapter must be attached.
  DomainBits bits(host::Transformer<float>& model, Adapter& adapter, MethodRouting& routing) const;

  /// Seconds of one forward pass over a fixed batch, and how many bytes that batch has.
  double forward_seconds(host::Transformer<float>& model) const;
  std::size_t timed_tokens() const { return batches_.front().inputs.size(); }

 private:
  template <class AfterBatch>
  DomainBits score(host::Transformer<float>& model, AfterBatch after_batch) const;

  std::size_t domains_;
  std::vector<Batch> batches_;  // each of one domain
};

}  // namespace adapt
