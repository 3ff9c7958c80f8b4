// SPDX-License-Identifier: MIT
#include "training/methods/single_ranks.hpp"

#include "mole/method/codyra.hpp"
#include "mole/method/flylora.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/moram.hpp"
#include "mole/method/smora.hpp"
#include "mole/method/sora.hpp"
#include "mole/optim/soft_threshold.hpp"
#include "mole/optim/threshold_schedule.hpp"
#include "mole/surgery/merge_and_reset.hpp"

#include <algorithm>
#include <utility>

namespace training {
namespace {

/// The layer that a method made.
template <class Made>
Made& held(Method::Layer& layer) {
  Made* const found = layer.target<Made>();
  mole::require(found != nullptr, mole::ErrorCode::order, "method: expected the layer that it made, found another");
  return *found;
}

using mole::Index;

/// The type inside a layer of mole::moram and the like, over a borrowed weight.
using Base = mole::DenseBase<mole::View<const float>>;
using Lora = decltype(mole::lora({}, std::declval<Base>(), std::declval<mole::Rng&>(), std::declval<Execution>()));
using Codyra = decltype(mole::codyra({}, std::declval<Base>(), std::declval<mole::Rng&>(), std::declval<Execution>()));
using Moram = decltype(mole::moram({}, std::declval<Base>(), std::declval<mole::Rng&>(), std::declval<Execution>()));

/// Moves the gates of a layer towards 0.
void shrink_gates(Method::Layer& layer, double threshold, mole::ThresholdMode mode) {
  layer.for_each_tensor([&](std::string_view name, mole::View<float> parameter, mole::View<float>) {
    if (name.ends_with(".gate")) mole::soft_threshold(parameter.row(0), threshold, mode);
  });
}

Method lora(std::string name, const std::string& what, Index rank, double learning_rate, const Execution& execution) {
  return {.name = std::move(name),
          .title = "LoRA r" + std::to_string(rank) + what,
          .learning_rate = learning_rate,
          .build =
              [=](const Site& site, mole::Rng& rng) {
                const mole::LoraOptions options{.rank = rank, .alpha = scale * double(rank)};
                return Method::Layer(mole::lora(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [=](const Site& site) { return Touched{.each = lora_parameters(site, rank)}; }};
}

Method sora(Index rank, const Execution& execution) {
  return {.name = "sora",
          .title = "SoRA r" + std::to_string(rank) + ", gated ranks",
          .learning_rate = 1e-2,
          .build =
              [=](const Site& site, mole::Rng& rng) {
                const mole::SoraOptions options{.rank = rank, .alpha = scale * double(rank)};
                return Method::Layer(mole::sora(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [](const Site& site) { return Touched{.each = lora_parameters(site, 1) + 1}; },
          .after_step =
              [](Method::Layer& layer, Index, Index) {
                shrink_gates(layer, 3e-4, mole::ThresholdMode::dead_zone);  // as released
              }};
}

Method codyra(Index rank, const Execution& execution) {
  return {.name = "codyra",
          .title = "CoDyRA r" + std::to_string(rank) + ", gated ranks",
          .learning_rate = 1e-2,
          .beta2 = 0.9999,
          .build =
              [=](const Site& site, mole::Rng& rng) {
                const mole::CodyraOptions options{.rank = rank};
                return Method::Layer(mole::codyra(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [](const Site& site) { return Touched{.each = lora_parameters(site, 1) + 1}; },
          .after_step =
              [](Method::Layer& layer, Index step, Index steps) {
                // 50 stages as released, but at least two steps each: with less the threshold would stay 0.
                const mole::ThresholdSchedule schedule{.stages = std::clamp<Index>(steps / 4, 2, 50),
                                                       .iterations = steps};
                shrink_gates(layer, schedule(step), mole::ThresholdMode::dead_zone);
              },
          .next_task = [](Method::Layer& layer, const Site&, mole::View<float> weight,
                          mole::Rng& rng) { mole::merge_and_reset(held<Codyra>(layer), weight, rng); }};
}

Method smora(const Execution& execution) {
  constexpr Index rank = 24, k = 8;
  return {.name = "smora",
          .title = "SMoRA, top-8 of 24 x r1",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                const mole::SmoraOptions options{.rank = rank, .k = k, .alpha = scale * double(k)};
                return Method::Layer(mole::smora(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = router_parameters(site, rank), .each = lora_parameters(site, 1)};
              },
          .balancer = mole::SignBiasBalancer::Options{.rate = 1e-5, .counts_padding = true}};
}

/// A is frozen, so the ranks may be twice as many.
Method flylora(const Execution& execution) {
  constexpr Index rank = 64, k = 16;
  return {.name = "flylora",
          .title = "FlyLoRA, top-16 of 64 x r1, A frozen",
          .learning_rate = 2e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                const mole::FlyloraOptions options{.rank = rank, .k = k, .alpha = scale * double(rank)};
                return Method::Layer(mole::flylora(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = rank * std::max<Index>(1, site.in() * k / rank), .each = site.out()};
              },
          .balancer = mole::SignBiasBalancer::Options{.rate = 1e-3}};
}

/// Tasks that arrive later append as many atoms again. The published threshold of inference, 0.2, is left out: here it
/// silences atoms that training has relied on.
Method moram(Index atoms, const Execution& execution) {
  const Index k = std::min<Index>(16, atoms);  // per token, whatever later tasks append
  return {.name = "moram",
          .title = "MoRAM, top-" + std::to_string(k) + " of " + std::to_string(atoms) + " atoms",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [=](const Site& site, mole::Rng& rng) {
                const mole::MoramOptions options{.ranks = {int(atoms)}, .k = k, .min_score = 0};
                return Method::Layer(mole::moram(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [=](const Site& site) { return Touched{.always = atoms * site.in(), .each = site.out()}; },
          .next_task =
              [=](Method::Layer& layer, const Site& site, mole::View<float>, mole::Rng& rng) {
                auto grown = std::move(held<Moram>(layer));
                mole::next_task(grown, atoms, rng);
                layer = Method::Layer(std::move(grown), site.max_tokens);
              }};
}

}  // namespace

std::vector<Method> methods_of_single_ranks(const Execution& execution, const EqualRanks& ranks) {
  return {lora("lora", ", equal active", ranks.active, 1e-2, execution),
          lora("lora-wide", ", equal trainable", ranks.trainable, 7e-3, execution),
          sora(ranks.trainable, execution),
          codyra(ranks.trainable, execution),
          smora(execution),
          flylora(execution),
          moram(ranks.trainable, execution)};
}

std::vector<Method> methods_of_tasks(const Execution& execution, Index rank) {
  Method on = lora("lora", ", trained on", rank, 1e-2, execution);
  Method merged = lora("lora_merged", ", merged", rank, 1e-2, execution);
  merged.next_task = [](Method::Layer& layer, const Site&, mole::View<float> weight, mole::Rng& rng) {
    mole::merge_and_reset(held<Lora>(layer), weight, rng);
  };
  Method growing = moram(rank, execution);
  growing.title = "MoRAM, " + std::to_string(rank) + " more atoms a task";
  return {std::move(on), std::move(merged), codyra(rank, execution), std::move(growing)};
}

}  // namespace training
