// SPDX-License-Identifier: MIT
// One method's layers for every linear layer of a model.
#pragma once

#include "adapt/adapted_linear.hpp"
#include "adapt/method.hpp"
#include "host/dense_linear.hpp"
#include "host/transformer.hpp"

#include <memory>
#include <string>
#include <vector>

namespace adapt {

/// Sizes of the linear layers of one block of `model`.
inline std::vector<LinearSize> linear_sizes(host::Transformer<float>& model) {
  std::vector<LinearSize> sizes;
  for (const host::Place place : host::places) {
    const auto& linear = *model.linear(0, place);
    sizes.push_back({linear.in(), linear.out()});
  }
  return sizes;
}

/// While an Attachment lives, the model computes with the adapter's layers; afterwards with its own again.
class Adapter {
 public:
  Adapter(const Method& method, host::Transformer<float>& model, mole::Index max_tokens, std::uint64_t seed)
      : method_(method), model_(model) {
    context_.balance = method.balance;
    mole::Rng rng(seed);
    for (host::Index block = 0; block < model.options().layers; ++block)
      for (const host::Place place : host::places) {
        const auto& frozen = dynamic_cast<const host::DenseLinear<float>&>(*model.linear(block, place));
        const std::uint64_t number = layers_.size();
        layers_.push_back(
            std::make_unique<AdaptedLinear>(method.build(frozen.weight().value, max_tokens, rng), number, context_));
        names_.push_back("blocks." + std::to_string(block) + "." + std::string(name(place)));
      }
    for (const auto& layer : layers_) adapted_.push_back(dynamic_cast<AdaptedLinear*>(layer.get()));
  }

  class Attachment {
   public:
    explicit Attachment(Adapter& adapter) : adapter_(adapter) { adapter_.swap(); }
    ~Attachment() { adapter_.swap(); }
    Attachment(const Attachment&) = delete;

   private:
    Adapter& adapter_;
  };

  const Method& method() const { return method_; }
  StepContext& context() { return context_; }
  std::size_t size() const { return adapted_.size(); }
  AdaptedLinear& layer(std::size_t i) { return *adapted_[i]; }
  const std::string& name_of(std::size_t i) const { return names_[i]; }

  /// f(name, parameter, gradient) for every tensor of every layer.
  void walk(const mole::AnyLinear<float>::Visitor& f) {
    for (std::size_t i = 0; i < adapted_.size(); ++i)
      adapted_[i]->layer().walk([&](std::string_view name, mole::View<float> parameter, mole::View<float> gradient) {
        f(names_[i] + "." + std::string(name), parameter, gradient);
      });
  }
  void zero_gradients() {
    for (AdaptedLinear* linear : adapted_) linear->layer().zero_gradients();
  }

  mole::Index trainable_parameters() {
    mole::Index count = 0;
    walk([&](std::string_view, mole::View<float> parameter, mole::View<float>) { count += parameter.size(); });
    return count;
  }
  mole::Index active_parameters() {
    mole::Index count = 0;
    for (AdaptedLinear* linear : adapted_) count += method_.active({linear->in(), linear->out()});
    return count;
  }

 private:
  /// Exchanges the model's layers with the ones held here.
  void swap() {
    std::size_t i = 0;
    for (host::Index block = 0; block < model_.options().layers; ++block)
      for (const host::Place place : host::places) std::swap(model_.linear(block, place), layers_[i++]);
  }

  const Method& method_;
  host::Transformer<float>& model_;
  StepContext context_;
  std::vector<std::unique_ptr<host::Linear<float>>> layers_;
  std::vector<AdaptedLinear*> adapted_;
  std::vector<std::string> names_;
};

}  // namespace adapt
