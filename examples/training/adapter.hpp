// SPDX-License-Identifier: MIT
// Adapter: one method's layers for every linear layer of a model.
#pragma once

#include "host/dense_linear.hpp"
#include "text/batch_sampler.hpp"
#include "training/adapted_linear.hpp"
#include "training/method_layers.hpp"
#include "training/model.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace training {

/// The linear layers of `model`, bottom first, for calls of up to `max_tokens` of so many domains. The model must hold
/// its own layers.
inline std::vector<Site> sites_of(Model& model, mole::Index max_tokens, std::size_t domains) {
  std::vector<Site> sites;
  const host::Index blocks = model.options().layers;
  for (host::Index block = 0; block < blocks; ++block)
    for (const host::Place place : host::places) {
      const auto& frozen = dynamic_cast<const host::DenseLinear<float>&>(*model.linear(block, place));
      sites.push_back({.weight = frozen.weight().value,
                       .block = block,
                       .blocks = blocks,
                       .max_tokens = max_tokens,
                       .domains = mole::Index(domains)});
    }
  return sites;
}

/// While an Attachment lives, the model computes with the adapter's layers; afterwards with its own again.
class Adapter : public MethodLayers {
 public:
  /// `sites` are those of `model`.
  Adapter(const Method& method, Model& model, std::vector<Site> sites, std::uint64_t seed,
          Weights weights = Weights::borrowed)
      : MethodLayers(method, std::move(sites), names_of(model), seed, weights), model_(model) {
    for (std::size_t i = 0; i < size(); ++i) linears_.push_back(std::make_unique<AdaptedLinear>(adapted(i)));
  }

  class Attachment {
   public:
    explicit Attachment(Adapter& adapter) : adapter_(adapter) { adapter_.swap(); }
    ~Attachment() { adapter_.swap(); }
    Attachment(const Attachment&) = delete;

   private:
    Adapter& adapter_;
  };

  /// The next calls train on `batch`: gradients are zero.
  void start_training(const text::Batch& batch, std::uint64_t seed, std::uint64_t step) {
    MethodLayers::start_training(begins(batch), labels(batch), seed, step);
  }
  /// The next calls evaluate `batch`.
  void start_evaluation(const text::Batch& batch) { MethodLayers::start_evaluation(begins(batch), labels(batch)); }

 private:
  static std::vector<std::string> names_of(Model& model) {
    std::vector<std::string> names;
    for (host::Index block = 0; block < model.options().layers; ++block)
      for (const host::Place place : host::places)
        names.push_back("blocks." + std::to_string(block) + "." + std::string(name(place)));
    return names;
  }
  static std::size_t length_of(const text::Batch& batch) { return batch.inputs.size() / batch.sequences(); }
  static std::vector<mole::Index> begins(const text::Batch& batch) {
    std::vector<mole::Index> result;
    for (std::size_t s = 0; s < batch.sequences(); ++s) result.push_back(mole::Index(s * length_of(batch)));
    return result;
  }
  /// Of each token the domain of its text.
  static std::vector<int> labels(const text::Batch& batch) {
    std::vector<int> result;
    for (const std::size_t domain : batch.domains) result.insert(result.end(), length_of(batch), int(domain));
    return result;
  }

  /// Exchanges the model's layers with the ones held here.
  void swap() {
    std::size_t i = 0;
    for (host::Index block = 0; block < model_.options().layers; ++block)
      for (const host::Place place : host::places) std::swap(model_.linear(block, place), linears_[i++]);
  }

  Model& model_;
  std::vector<std::unique_ptr<host::Linear<float>>> linears_;
};

}  // namespace training
