// SPDX-License-Identifier: MIT
// Adapter: one method's layers for every linear layer of a model.
#pragma once

#include "host/dense_linear.hpp"
#include "mole/core/matrix.hpp"
#include "text/batch_sampler.hpp"
#include "training/adapted_linear.hpp"
#include "training/method.hpp"
#include "training/model.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace training {

/// What an adapter's layers compute with: the host's weights, or copies, which a method may merge into.
enum class Weights { borrowed, copied };

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
class Adapter {
 public:
  /// `sites` are those of `model`.
  Adapter(const Method& method, Model& model, std::vector<Site> sites, std::uint64_t seed,
          Weights weights = Weights::borrowed)
      : method_(method), model_(model), rng_(seed), sites_(std::move(sites)) {
    weights_.reserve(sites_.size());  // the layers borrow them
    if (method.share) shared_ = method.share(sites_, rng_);
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      if (weights == Weights::copied) own_weight(sites_[i]);
      auto layer = shared_ ? method.build_shared(sites_[i], *shared_, rng_) : method.build(sites_[i], rng_);
      auto linear = std::make_unique<AdaptedLinear>(method, std::move(layer), i, shared_.get(), pass_);
      adapted_.push_back(linear.get());
      layers_.push_back(std::move(linear));
      const std::size_t places = host::places.size();
      names_.push_back("blocks." + std::to_string(i / places) + "." + std::string(name(host::places[i % places])));
    }
  }
  Adapter(const Adapter&) = delete;

  class Attachment {
   public:
    explicit Attachment(Adapter& adapter) : adapter_(adapter) { adapter_.swap(); }
    ~Attachment() { adapter_.swap(); }
    Attachment(const Attachment&) = delete;

   private:
    Adapter& adapter_;
  };

  const Method& method() const { return method_; }
  std::size_t size() const { return adapted_.size(); }
  mole::AnyLinear<float>& layer(std::size_t i) { return adapted_[i]->layer(); }
  AdaptedLinear& linear(std::size_t i) { return *adapted_[i]; }
  const Site& site(std::size_t i) const { return sites_[i]; }
  const std::string& name_of(std::size_t i) const { return names_[i]; }

  /// f(name, parameter, gradient) for every tensor of every layer, and those that layers share.
  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) {
    if (shared_)
      shared_->for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float> gradient) {
        f("shared." + std::string(name), parameter, gradient);
      });
    for (std::size_t i = 0; i < adapted_.size(); ++i)
      layer(i).for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float> gradient) {
        f(names_[i] + "." + std::string(name), parameter, gradient);
      });
  }
  /// f(name, span) for what else a checkpoint needs.
  template <class F>
  void for_each_state(F&& f) {
    if (shared_)
      shared_->for_each_state(
          [&](std::string_view name, std::span<std::uint8_t> numbers) { f("shared." + std::string(name), numbers); });
    for (std::size_t i = 0; i < adapted_.size(); ++i) mole::for_each_state_within(names_[i], *adapted_[i], f);
  }

  /// The next calls train on `batch`: gradients are zero.
  void start_training(const text::Batch& batch, std::uint64_t seed, std::uint64_t step) {
    if (shared_) shared_->zero_gradients();
    for (AdaptedLinear* linear : adapted_) linear->layer().zero_gradients();
    const std::size_t length = batch.inputs.size() / batch.sequences();
    sequence_begin_.resize(batch.sequences());
    for (std::size_t s = 0; s < batch.sequences(); ++s) sequence_begin_[s] = mole::Index(s * length);
    pass_ = {.training = true, .seed = seed, .step = step, .sequence_begin = sequence_begin_};
    label(batch);
  }
  /// The next calls evaluate `batch`.
  void start_evaluation(const text::Batch& batch) {
    pass_ = {};
    label(batch);
  }

  void after_step(mole::Index step, mole::Index steps) {
    if (shared_) shared_->after_step(step, steps);
    for (AdaptedLinear* linear : adapted_) linear->after_step(step, steps);
  }
  /// The task is learned, another one comes. Throws std::logic_error unless weights are copied.
  void next_task() {
    if (weights_.empty()) throw std::logic_error("adapter: expected weights of its own, found the host's");
    if (!method_.next_task) return;
    for (std::size_t i = 0; i < adapted_.size(); ++i)
      method_.next_task(adapted_[i]->layer(), sites_[i], weights_[i].view(), rng_);
  }

  mole::Index trainable_parameters() {
    mole::Index count = 0;
    for_each_tensor([&](std::string_view, mole::View<float> parameter, mole::View<float> gradient) {
      if (gradient) count += parameter.size();
    });
    return count;
  }

 private:
  /// Labels tokens with the domain of their text, and forces that expert on them for methods that do so.
  void label(const text::Batch& batch) {
    labels_.clear();
    const std::size_t length = batch.inputs.size() / batch.sequences();
    for (const std::size_t domain : batch.domains) labels_.insert(labels_.end(), length, int(domain));
    pass_.labels = labels_;
    if (method_.domain_experts) pass_.forced = labels_;
  }

  void own_weight(Site& site) {
    mole::Matrix<float> weight(site.out(), site.in());
    for (mole::Index r = 0; r < site.out(); ++r)
      std::copy_n(site.weight.row_data(r), site.in(), weight.view().row_data(r));
    weights_.push_back(std::move(weight));
    site.weight = weights_.back().view();
  }

  /// Exchanges the model's layers with the ones held here.
  void swap() {
    std::size_t i = 0;
    for (host::Index block = 0; block < model_.options().layers; ++block)
      for (const host::Place place : host::places) std::swap(model_.linear(block, place), layers_[i++]);
  }

  const Method& method_;
  Model& model_;
  mole::Rng rng_;
  mole::Pass pass_;
  std::vector<mole::Index> sequence_begin_;  // of the current batch
  std::vector<int> labels_;
  std::vector<mole::Matrix<float>> weights_;  // where they are copied
  std::vector<Site> sites_;
  std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<host::Linear<float>>> layers_;
  std::vector<AdaptedLinear*> adapted_;
  std::vector<std::string> names_;
};

}  // namespace training
