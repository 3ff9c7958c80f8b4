// SPDX-License-Identifier: MIT
// MethodLayers: one method's layers, for all linear layers of a model, and the pass that they share.
#pragma once

#include "training/adapted_layer.hpp"
#include "training/method.hpp"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace training {

/// What layers compute with: the host's weights, or copies, which a method may merge into.
enum class Weights { borrowed, copied };

class MethodLayers {
 public:
  /// A layer for each site, under the name of the same number. `method` is borrowed.
  MethodLayers(const Method& method, std::vector<Site> sites, std::vector<std::string> names, std::uint64_t seed,
               Weights weights = Weights::borrowed)
      : method_(method), rng_(seed), sites_(std::move(sites)), names_(std::move(names)) {
    weights_.reserve(sites_.size());  // the layers borrow them
    if (method.share) shared_ = method.share(sites_, rng_);
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      if (weights == Weights::copied) own_weight(sites_[i]);
      auto layer = shared_ ? method.build_shared(sites_[i], *shared_, rng_) : method.build(sites_[i], rng_);
      layers_.emplace_back(method, std::move(layer), i, shared_.get(), pass_);
    }
  }
  MethodLayers(const MethodLayers&) = delete;

  const Method& method() const { return method_; }
  std::size_t size() const { return layers_.size(); }
  mole::AnyLinear<float>& layer(std::size_t i) { return layers_[i].layer(); }
  AdaptedLayer& adapted(std::size_t i) { return layers_[i]; }
  const Site& site(std::size_t i) const { return sites_[i]; }
  const std::string& name_of(std::size_t i) const { return names_[i]; }

  /// f(name, parameter, gradient) for every tensor of every layer, and those that layers share.
  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) {
    if (shared_)
      shared_->for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float> gradient) {
        f("shared." + std::string(name), parameter, gradient);
      });
    for (std::size_t i = 0; i < layers_.size(); ++i)
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
    for (std::size_t i = 0; i < layers_.size(); ++i) mole::for_each_state_within(names_[i], layers_[i], f);
  }

  /// The next calls train on sequences that begin at `begin`, of tokens with these labels: gradients are zero.
  void start_training(std::vector<mole::Index> begin, std::vector<int> labels, std::uint64_t seed, std::uint64_t step) {
    if (shared_) shared_->zero_gradients();
    for (AdaptedLayer& layer : layers_) layer.layer().zero_gradients();
    pass_ = {.training = true, .seed = seed, .step = step};
    take(std::move(begin), std::move(labels));
  }
  /// The next calls evaluate such.
  void start_evaluation(std::vector<mole::Index> begin, std::vector<int> labels) {
    pass_ = {};
    take(std::move(begin), std::move(labels));
  }

  void after_step(mole::Index step, mole::Index steps) {
    if (shared_) shared_->after_step(step, steps);
    for (AdaptedLayer& layer : layers_) layer.after_step(step, steps);
  }
  /// The task is learned, another one comes. Throws std::logic_error unless weights are copied.
  void next_task() {
    if (weights_.empty()) throw std::logic_error("adapter: expected weights of its own, found the host's");
    if (!method_.next_task) return;
    for (std::size_t i = 0; i < layers_.size(); ++i) method_.next_task(layer(i), sites_[i], weights_[i].view(), rng_);
  }

  mole::Index trainable_parameters() {
    mole::Index count = 0;
    for_each_tensor([&](std::string_view, mole::View<float> parameter, mole::View<float> gradient) {
      if (gradient) count += parameter.size();
    });
    return count;
  }

 private:
  /// Labels are the domains of tokens; methods that do so force the expert of that number on them.
  void take(std::vector<mole::Index> begin, std::vector<int> labels) {
    begin_ = std::move(begin), labels_ = std::move(labels);
    pass_.sequence_begin = begin_;
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

  const Method& method_;
  mole::Rng rng_;
  mole::Pass pass_;
  std::vector<mole::Index> begin_;  // of the current batch
  std::vector<int> labels_;
  std::vector<mole::Matrix<float>> weights_;  // where they are copied
  std::vector<Site> sites_;
  std::vector<std::string> names_;
  std::unique_ptr<Shared> shared_;
  std::deque<AdaptedLayer> layers_;  // elements keep their place
};

}  // namespace training
