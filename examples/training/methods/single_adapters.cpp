// SPDX-License-Identifier: MIT
#include "training/methods/single_adapters.hpp"

#include "mole/init/goat.hpp"
#include "mole/init/pissa.hpp"
#include "mole/loss/load_balance.hpp"
#include "mole/method/adalora.hpp"
#include "mole/method/dora.hpp"
#include "mole/method/goat.hpp"
#include "mole/method/loha.hpp"
#include "mole/method/lokr.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/moelora.hpp"
#include "mole/method/mtl_lora.hpp"
#include "mole/method/nola.hpp"
#include "mole/method/oft.hpp"
#include "mole/method/poly.hpp"
#include "mole/method/randlora.hpp"
#include "mole/method/vera.hpp"

#include <algorithm>
#include <functional>
#include <memory>

namespace training {
namespace {

using mole::Index;

/// The layers of a host that are adapted are of two kinds: square, and four times as wide on one side.
Index widest(const Site& site) {
  return 4 * std::min(site.in(), site.out());
}

/// A method of one adapter with `trained` numbers in a layer, all of which every token touches.
template <class Build>
Method single(std::string name, std::string title, double learning_rate, Build build,
              std::function<Index(const Site&)> trained) {
  return {
      .name = std::move(name),
      .title = std::move(title),
      .learning_rate = learning_rate,
      .build = [build](const Site& site, mole::Rng& rng) { return Method::Layer(build(site, rng), site.max_tokens); },
      .touched = [trained](const Site& site) { return Touched{.always = trained(site)}; }};
}

Method dora(Index rank, const Execution& execution) {
  return single(
      "dora", "DoRA r" + std::to_string(rank), 7e-3,
      [=](const Site& site, mole::Rng& rng) {
        return mole::dora({.rank = rank, .alpha = scale * double(rank)}, site.weight, site.base(), rng, execution);
      },
      [=](const Site& site) { return lora_parameters(site, rank) + site.out(); });
}

Method pissa(Index rank, const Execution& execution) {
  return single(
      "pissa", "LoRA r" + std::to_string(rank) + ", PiSSA start", 2e-3,
      [=](const Site& site, mole::Rng& rng) {
        mole::Matrix<float> residual(site.out(), site.in());
        auto layer =
            mole::lora({.rank = rank, .alpha = double(rank)}, mole::DenseBase{std::move(residual)}, rng, execution);
        mole::pissa_init(layer.experts(), site.weight, layer.base().parameters().weight.view());
        return layer;
      },
      [=](const Site& site) { return lora_parameters(site, rank); });
}

Method adalora(Index rank, const Execution& execution) {
  return single(
      "adalora", "AdaLoRA r" + std::to_string(rank) + ", no allocation", 1e-2,
      [=](const Site& site, mole::Rng& rng) {
        return mole::adalora({.rank = rank, .alpha = scale * double(rank)}, site.base(), rng, execution);
      },
      [=](const Site& site) { return lora_parameters(site, rank) + rank; });
}

Method loha(const Execution& execution) {
  constexpr Index rank = 8;  // of each product: together as many numbers as a LoRA of 16
  return single(
      "loha", "LoHa r8 o r8", 1e-2,
      [=](const Site& site, mole::Rng& rng) {
        return mole::loha({.rank = rank, .alpha = scale * double(rank)}, site.base(), rng, execution);
      },
      [=](const Site& site) { return lora_parameters(site, 2 * rank); });
}

Method lokr(const Execution& execution) {
  constexpr Index rank = 16;  // of no effect here: both matrices are small enough to be whole
  const auto trained = [=](const Site& site) {
    mole::Rng rng;
    Index count = 0;
    auto layer = mole::lokr({.rank = rank}, site.base(), rng);
    layer.for_each_tensor([&](std::string_view, mole::View<float> tensor) { count += tensor.size(); });
    return count;
  };
  return single(
      "lokr", "LoKr", 2e-2,
      [=](const Site& site, mole::Rng& rng) {
        return mole::lokr({.rank = rank, .alpha = scale * double(rank)}, site.base(), rng, execution);
      },
      trained);
}

Method oft(const Execution& execution) {
  constexpr Index block = 16;
  return single(
      "oft", "OFT, blocks of 16", 5e-3,
      [=](const Site& site, mole::Rng& rng) {
        return mole::oft({.block = block}, site.weight, site.base(), rng, execution);
      },
      [](const Site& site) { return site.in() * (block - 1) / 2; });
}

Method vera(const Execution& execution) {
  constexpr Index rank = 64;
  const auto pair_for = [](const Site& site) {
    mole::Rng rng(1);  // the same for all layers
    return mole::FrozenPair<float>::random(rank, widest(site), widest(site), rng);
  };
  return single(
      "vera", "VeRA r64", 2e-2,
      [=](const Site& site, mole::Rng& rng) { return mole::vera({}, pair_for(site), site.base(), rng, execution); },
      [](const Site& site) { return rank + site.out(); });
}

Method nola(const Execution& execution) {
  constexpr Index rank = 8, bases = 128;
  return single(
      "nola", "NOLA r8 of 128 bases", 2e-2,
      [=](const Site& site, mole::Rng& rng) {
        return mole::nola({.rank = rank, .bases = bases, .alpha = scale * double(rank), .keep = true}, site.base(), rng,
                          execution);
      },
      [](const Site&) { return 2 * bases; });
}

Method randlora(const Execution& execution) {
  constexpr Index rank = 16;
  const auto bases_for = [](const Site& site) {
    return std::make_shared<const mole::DiagonalBases<float>>(mole::DiagonalBases<float>::Options{
        .rank = rank, .small_side = std::min(site.in(), site.out()), .large_side = widest(site), .seed = 1});
  };
  return single(
      "randlora", "RandLoRA r16", 1e-2,
      [=](const Site& site, mole::Rng& rng) {
        return mole::randlora({.alpha = scale * double(rank)}, bases_for(site), site.base(), rng, execution);
      },
      [](const Site& site) {
        const Index small = std::min(site.in(), site.out());
        return (small + rank - 1) / rank * (rank + small);
      });
}

/// A layer of experts that are chosen by the domain of the text alone.
template <class Experts>
Method::Layer by_domain(Experts& experts, const Site& site, const Execution& execution) {
  const mole::Gate forced{mole::Identity{}, mole::TopK{.k = 1}, mole::Unit{}};
  return Method::Layer(
      mole::MixtureLinear(mole::NoRouter<float>(site.domains), forced, std::move(experts), site.base(), execution),
      site.max_tokens);
}

/// The domains of the text are its tasks.
Method mtl_lora(const Execution& execution) {
  constexpr Index rank = 16, up_matrices = 3;
  return {.name = "mtl_lora",
          .title = "MTL-LoRA r16, 3 B, domains as tasks",
          .learning_rate = 1e-2,
          .domain_experts = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                const auto base = site.base();
                auto tasks = mole::mtl_lora(
                    {.tasks = site.domains, .rank = rank, .up_matrices = up_matrices, .alpha = scale * double(rank)},
                    base, rng, execution);
                return by_domain(tasks.experts(), site, execution);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = rank * (site.in() + up_matrices * site.out() + rank) + up_matrices};
              }};
}

/// The same.
Method poly(const Execution& execution) {
  constexpr Index skills = 4, rank = 8, splits = 4;
  return {
      .name = "poly",
      .title = "Poly, 4 skills x r8 in 4 parts, domains as tasks",
      .learning_rate = 1e-2,
      .domain_experts = true,
      .build =
          [execution](const Site& site, mole::Rng& rng) {
            auto tasks = mole::poly({.tasks = site.domains,
                                     .skills = skills,
                                     .splits = splits,
                                     .rank = rank,
                                     .alpha = scale * double(rank)},
                                    site.base(), rng, execution);
            return by_domain(tasks.experts(), site, execution);
          },
      .touched =
          [](const Site& site) { return Touched{.always = lora_parameters(site, skills * rank) + skills * splits}; }};
}

/// A router that reads the domain, of all experts.
Method moelora(const Execution& execution) {
  constexpr Index total_rank = experts * expert_rank, width = 16;
  return {.name = "moelora",
          .title = "MOELoRA, all 8 x r4, domains as tasks",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(mole::moelora({.experts = experts,
                                                    .tasks = site.domains,
                                                    .task_width = width,
                                                    .total_rank = total_rank,
                                                    .alpha = scale * double(total_rank),
                                                    .dropout = 0},
                                                   site.base(), rng, execution),
                                     site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = width * (experts + 1), .each = lora_parameters(site, expert_rank)};
              }};
}

/// The base is what the experts' start leaves of the weight.
Method goat(const Execution& execution) {
  return {.name = "goat",
          .title = "GOAT, top-2 of 8 x r4",
          .learning_rate = 5e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                mole::Matrix<float> residual(site.out(), site.in());
                auto layer = mole::goat({.experts = experts, .total_rank = experts * expert_rank, .k = chosen},
                                        mole::DenseBase{std::move(residual)}, rng, execution);
                mole::goat_init(layer.experts(), site.weight, layer.base().parameters().weight.view());
                return Method::Layer(std::move(layer), site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = router_parameters(site), .each = lora_parameters(site, expert_rank)};
              },
          .loss =
              [](mole::Trace<float>& trace) {
                mole::load_balance(trace, {.coefficient = 1e-3, .norm = mole::BalanceNorm::k_at_uniform});
              }};
}

}  // namespace

std::vector<Method> methods_of_single_adapters(const Execution& execution, const EqualRanks& ranks) {
  return {dora(ranks.trainable, execution),
          pissa(ranks.trainable, execution),
          adalora(ranks.trainable, execution),
          loha(execution),
          lokr(execution),
          oft(execution),
          vera(execution),
          nola(execution),
          randlora(execution),
          mtl_lora(execution),
          poly(execution),
          moelora(execution),
          goat(execution)};
}

}  // namespace training
