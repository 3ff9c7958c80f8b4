// SPDX-License-Identifier: MIT
// Presets that are dense LoRA experts behind a router and a gate.
#include "mole/c/preset.hpp"
#include "mole/method/ada_mole.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/method/arrow.hpp"
#include "mole/method/deepseek_moe.hpp"
#include "mole/method/deepseek_v3.hpp"
#include "mole/method/dyn_mole.hpp"
#include "mole/method/dynamic_moe.hpp"
#include "mole/method/expert_choice.hpp"
#include "mole/method/goat.hpp"
#include "mole/method/ld_mole.hpp"
#include "mole/method/llava_mole.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/moelora.hpp"
#include "mole/method/mola.hpp"
#include "mole/method/mole_threshold.hpp"
#include "mole/method/noisy_top_k.hpp"
#include "mole/method/promoe.hpp"
#include "mole/method/switch_transformer.hpp"

namespace mole::c {

template <>
struct Words<GoatScale> {
  static constexpr const char* words[] = {"alpha_over_rank", "alpha_over_sqrt_rank", "as_full_training", "two"};
};
template <>
struct Words<EntropyFamily> {
  static constexpr const char* words[] = {"tsallis", "renyi"};
};
template <>
struct Words<CapacityPriority> {
  static constexpr const char* words[] = {"position", "token", "probability", "batch", "random"};
};
template <>
struct Words<CapacityRounding> {
  static constexpr const char* words[] = {"up", "down", "of_each_choice"};
};
template <>
struct Words<DeepseekMoeGates> {
  static constexpr const char* words[] = {"raw", "renormalized"};
};

namespace {

/// Two types by their gates.
struct DeepseekMoe : DeepseekMoeOptions {
  DeepseekMoeGates gates = DeepseekMoeGates::raw;
};

/// The options of the experts, which in C++ are there already.
struct Arrow : ArrowOptions {
  Index experts = 8;
  Index rank = 8;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;
};

auto arrow_layer(const Arrow& o, Site& s) {
  LowRank<DenseFactors<float>> experts({.in = s.base.in(),
                                        .out = s.base.out(),
                                        .experts = o.experts,
                                        .rank = o.rank,
                                        .alpha = o.alpha,
                                        .scaling = o.scaling,
                                        .dropout = {.rate = o.dropout, .stream = 1}},
                                       s.rng);
  auto layer = arrow(o, std::move(experts), s.base, s.execution);
  s.renew_router = [](AnyLinear<float>& any) {
    const Matrix<float> prototypes = arrow_prototypes(std::as_const(*any.target<decltype(layer)>()).experts());
    any.for_each_tensor([&](std::string_view name, View<float> parameter, View<float>) {
      if (name == "router.weight") copy<float>(prototypes, parameter);
    });
  };
  return AnyLinear<float>(std::move(layer), 1, {.router = false});
}

}  // namespace

std::vector<Preset> lora_mixture_presets() {
  return {
      preset<LoraOptions>("lora", shared_options,
                          [](const auto& o, Site& s) { return lora(o, s.base, s.rng, s.execution); }),
      preset<MolaOptions>("mola", shared_options,
                          [](const auto& o, Site& s) { return mola(o, s.base, s.rng, s.execution); }),
      preset<GoatOptions>(
          "goat",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o);
            f("total_rank", o.total_rank), f("scale", o.scale), f("eta", o.eta);
          },
          [](const auto& o, Site& s) { return goat(o, s.base, s.rng, s.execution); }),
      preset<NoisyTopKOptions>(
          "noisy_top_k", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("floor", o.floor); },
          [](const auto& o, Site& s) { return noisy_top_k(o, s.base, s.rng, s.execution); }),
      preset<LoramoeOptions>(
          "loramoe", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("shared_down", o.shared_down); },
          [](const auto& o, Site& s) { return loramoe(o, s.base, s.rng, s.execution); }),
      preset<LlavaMoleOptions>("llava_mole", shared_options,
                               [](const auto& o, Site& s) { return llava_mole(o, s.base, s.rng, s.execution); }),
      preset<DynamicMoeOptions>(
          "dynamic_moe", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("p", o.p), f("strict", o.strict); },
          [](const auto& o, Site& s) { return dynamic_moe(o, s.base, s.rng, s.execution); }),
      preset<MoleThresholdOptions>(
          "mole_threshold", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("threshold", o.threshold); },
          [](const auto& o, Site& s) { return mole_threshold(o, s.base, s.rng, s.execution); }),
      preset<DynMoleOptions>(
          "dyn_mole",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o);
            f("p", o.p), f("keep_top_k", o.keep_top_k), f("entropy_threshold", o.entropy_threshold);
            f("entropy", o.entropy.family), f("entropy_order", o.entropy.order);
            f("entropy_shift", o.entropy.shift), f("entropy_offset", o.entropy.offset);
          },
          [](const auto& o, Site& s) { return dyn_mole(o, s.base, s.rng, s.execution); }),
      preset<AdaMoleOptions>(
          "ada_mole", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("max_threshold", o.max_threshold); },
          [](const auto& o, Site& s) { return ada_mole(o, s.base, s.rng, s.execution); }),
      preset<LdMoleOptions>(
          "ld_mole",
          [](OptionVisitor& f, auto& o) { shared_options(f, o), f("hidden", o.hidden), f("epsilon", o.epsilon); },
          [](const auto& o, Site& s) { return ld_mole(o, s.base, s.rng, s.execution); }),
      preset<DeepseekMoe>(
          "deepseek_moe", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("gates", o.gates); },
          [](const auto& o, Site& s) {
            constexpr auto renormalized = DeepseekMoeGates::renormalized;
            return o.gates == renormalized
                       ? AnyLinear<float>(deepseek_moe<renormalized>(o, s.base, s.rng, s.execution), 1)
                       : AnyLinear<float>(deepseek_moe(o, s.base, s.rng, s.execution), 1);
          }),
      preset<DeepseekV3Options>(
          "deepseek_v3",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o);
            f("groups", o.groups), f("kept_groups", o.kept_groups), f("route_scale", o.route_scale);
          },
          [](const auto& o, Site& s) { return deepseek_v3(o, s.base, s.rng, s.execution); }),
      preset<SwitchTransformerOptions>(
          "switch_transformer",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o);
            f("capacity_factor", o.capacity.factor), f("capacity_min", o.capacity.min);
            f("capacity_multiple", o.capacity.multiple), f("capacity_fixed", o.capacity.fixed);
            f("capacity_priority", o.capacity.priority), f("capacity_rounding", o.capacity.rounding);
            f("per_sequence", o.capacity.per_sequence);
          },
          [](const auto& o, Site& s) { return switch_transformer(o, s.base, s.rng, s.execution); }),
      preset<ExpertChoiceOptions>(
          "expert_choice",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o), f("factor", o.factor), f("per_sequence", o.per_sequence);
          },
          [](const auto& o, Site& s) { return expert_choice(o, s.base, s.rng, s.execution); }),
      preset<PromoeOptions>("promoe", shared_options,
                            [](const auto& o, Site& s) { return promoe(o, s.base, s.rng, s.execution); }),
      preset<Arrow>(
          "arrow", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("temperature", o.temperature); },
          [](const auto& o, Site& s) { return arrow_layer(o, s); }),
      preset<MoeloraOptions>(
          "moelora",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o);
            f("tasks", o.tasks), f("task_width", o.task_width), f("total_rank", o.total_rank);
          },
          [](const auto& o, Site& s) { return moelora(o, s.base, s.rng, s.execution); }),
  };
}

}  // namespace mole::c
