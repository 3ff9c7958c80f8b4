// SPDX-License-Identifier: MIT
// Evaluation: how well a model predicts held-out text, and how fast.
#pragma once

#include "text/batch_sampler.hpp"
#include "training/adapter.hpp"
#include "training/model.hpp"

#include <functional>
#include <vector>

namespace training {

/// Held-out bits per byte of each domain.
using DomainBits = std::vector<double>;

/// The held-out windows of all domains, and how to score a model on them.
class Evaluation {
 public:
  static constexpr std::size_t windows_per_batch = 16;

  /// Called after each batch, of one domain; the model and its layers are as the batch has left them.
  using AfterBatch = std::function<void(const text::Batch&)>;

  /// Of up to `most` windows of each domain. Throws std::runtime_error for a domain without a window.
  Evaluation(const std::vector<text::Domain>& domains, std::size_t context, std::size_t most);

  /// Of a model that `adapter` is attached to, if there is one.
  DomainBits bits(
      Model& model, Adapter* adapter = nullptr, const AfterBatch& after_batch = [](const text::Batch&) {}) const;

  /// Seconds of one forward pass over a fixed batch, and how many bytes that batch has.
  double forward_seconds(Model& model, Adapter* adapter = nullptr) const;
  std::size_t timed_tokens() const { return batches_.front().inputs.size(); }

 private:
  std::size_t domains_;
  std::vector<text::Batch> batches_;  // each of one domain
};

}  // namespace training
