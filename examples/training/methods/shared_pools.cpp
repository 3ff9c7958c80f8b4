// SPDX-License-Identifier: MIT
#include "training/methods/shared_pools.hpp"

#include "mole/method/diffora.hpp"
#include "mole/method/mos.hpp"
#include "mole/method/vblora.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace training {
namespace {

using mole::Index;
using Base = mole::DenseBase<mole::View<const float>>;

/// A pool or bank, and the gradient that its layers add to.
template <class Pool>
struct Trained {
  explicit Trained(std::shared_ptr<Pool> made) : pool(std::move(made)), gradients(pool->gradients()) {}

  std::shared_ptr<Pool> pool;
  typename Pool::Parameters gradients;
};

/// One pool for all layers of the same inputs and outputs.
class Pools final : public Shared {
 public:
  using Pool = mole::ShardPool<float>;
  using Size = std::pair<Index, Index>;

  Pools(const std::vector<Site>& sites, mole::Rng& rng) {
    std::map<Size, Index> layers;
    for (const Site& site : sites) ++layers[{site.in(), site.out()}];
    for (const auto& [size, count] : layers) {
      const Pool::Options options{
          .in = size.first, .out = size.second, .layers = count, .pool_rank = budget, .rank = rank, .private_rank = 2};
      pools_.emplace(size, Trained<Pool>(std::make_shared<Pool>(options, rng)));
    }
  }

  /// The pool of a site, and which of its layers the next one is.
  std::pair<Trained<Pool>&, Index> next(const Site& site) {
    const Size size{site.in(), site.out()};
    return {pools_.at(size), used_[size]++};
  }
  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) override {
    for (auto& [size, trained] : pools_) {
      const std::string of = std::to_string(size.first) + "x" + std::to_string(size.second) + ".";
      trained.pool->for_each_tensor([&](std::string_view name, mole::View<float> parameter,
                                        mole::View<float> gradient) { f(of + std::string(name), parameter, gradient); },
                                    trained.gradients);
    }
  }
  void zero_gradients() override {
    for (auto& [size, trained] : pools_) mole::set_zero(trained.gradients);
  }

  static constexpr Index budget = 8, rank = 24;  // what a LoRA of 8 ranks has, for 24 ranks of a layer

 private:
  std::map<Size, Trained<Pool>> pools_;
  std::map<Size, Index> used_;
};

Method mos(const Execution& execution) {
  return {.name = "mos",
          .title = "MoS, 24 ranks for the numbers of 8",
          .learning_rate = 1e-2,
          .touched = [](const Site& site) { return Touched{.always = lora_parameters(site, Pools::rank)}; },
          .share = [](const std::vector<Site>& sites, mole::Rng& rng) { return std::make_unique<Pools>(sites, rng); },
          .build_shared =
              [execution](const Site& site, Shared& shared, mole::Rng& rng) {
                const auto [trained, number] = dynamic_cast<Pools&>(shared).next(site);
                auto made = mole::mos({.layer = number, .alpha = scale * double(Pools::rank), .dropout = 0},
                                      trained.pool, Base{site.weight}, rng, execution);
                Method::Layer layer(std::move(made), site.max_tokens);
                layer.gradients<decltype(made)>()->experts.pool = &trained.gradients;
                return layer;
              }};
}

/// One bank for all layers, whose vectors fit in each side of each of them.
class Bank final : public Shared {
 public:
  using Vectors = mole::VectorBank<float>;

  explicit Bank(mole::Rng& rng)
      : trained(std::make_shared<Vectors>(Vectors::Options{.vectors = vectors, .length = length}, rng)) {}

  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) override {
    trained.pool->for_each_tensor(f, trained.gradients);
  }
  void zero_gradients() override { mole::set_zero(trained.gradients); }

  static constexpr Index vectors = 64, length = 32;
  Trained<Vectors> trained;
};

/// The logits, 64 for each 32 numbers of A and B, are most of what is trained: k of them matter in the end.
Method vblora(const Execution& execution) {
  constexpr Index rank = 4;
  return {.name = "vblora",
          .title = "VB-LoRA r4, top-2 of 64 vectors",
          .learning_rate = 2e-2,
          .touched =
              [](const Site& site) {
                return Touched{.always = lora_parameters(site, rank) / Bank::length * Bank::vectors};
              },
          .share = [](const std::vector<Site>&, mole::Rng& rng) { return std::make_unique<Bank>(rng); },
          .build_shared =
              [execution](const Site& site, Shared& shared, mole::Rng& rng) {
                auto& trained = dynamic_cast<Bank&>(shared).trained;
                auto made = mole::vblora({.rank = rank}, trained.pool, Base{site.weight}, rng, execution);
                Method::Layer layer(std::move(made), site.max_tokens);
                layer.gradients<decltype(made)>()->experts.bank = &trained.gradients;
                return layer;
              }};
}

/// One gate for each layer of each block, which choose half of a block's layers at half of the steps.
class Gates final : public Shared {
 public:
  using Modules = mole::ModuleGates<float>;

  explicit Gates(const std::vector<Site>& sites)
      : trained(std::make_shared<Modules>(
            Modules::Options{.layers = sites.front().blocks, .modules = Index(sites.size()) / sites.front().blocks})),
        used_(std::size_t(sites.front().blocks)) {}

  /// Which of its block's layers the next one is.
  Index next(const Site& site) { return used_[std::size_t(site.block)]++; }
  void for_each_tensor(const mole::AnyLinear<float>::Visitor& f) override {
    trained.pool->for_each_tensor(f, trained.gradients);
  }
  void zero_gradients() override { mole::set_zero(trained.gradients); }
  void for_each_state(const std::function<void(std::string_view, std::span<std::uint8_t>)>& f) override {
    trained.pool->for_each_state(f);
  }
  void after_step(Index step, Index steps) override {
    if (step + 1 == steps / 2) trained.pool->discretize(0.5);
  }

  Trained<Modules> trained;

 private:
  std::vector<Index> used_;
};

Method diffora(Index rank, const Execution& execution) {
  return {.name = "diffora",
          .title = "DiffoRA r" + std::to_string(rank) + ", half of the modules",
          .learning_rate = 1e-2,
          .touched = [rank](const Site& site) { return Touched{.each = lora_parameters(site, rank)}; },
          .share = [](const std::vector<Site>& sites, mole::Rng&) { return std::make_unique<Gates>(sites); },
          .build_shared =
              [rank, execution](const Site& site, Shared& shared, mole::Rng& rng) {
                auto& gates = dynamic_cast<Gates&>(shared);
                auto made = mole::diffora(
                    {.layer = site.block, .module = gates.next(site), .rank = rank, .alpha = scale * double(rank)},
                    gates.trained.pool, Base{site.weight}, rng, execution);
                Method::Layer layer(std::move(made), site.max_tokens);
                layer.gradients<decltype(made)>()->router.gates = &gates.trained.gradients;
                return layer;
              },
          .chooses = [](std::string_view name) { return name == "shared.alpha"; }};
}

}  // namespace

std::vector<Method> methods_of_shared_pools(const Execution& execution, const EqualRanks& ranks) {
  return {mos(execution), vblora(execution), diffora(ranks.trainable, execution)};
}

}  // namespace training
