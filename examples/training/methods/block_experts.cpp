// SPDX-License-Identifier: MIT
#include "training/methods/block_experts.hpp"

#include "mole/loss/load_balance.hpp"
#include "mole/loss/router_entropy.hpp"
#include "mole/loss/router_z.hpp"
#include "mole/loss/sparsity_target.hpp"
#include "mole/method/ada_mole.hpp"
#include "mole/method/compressed_experts.hpp"
#include "mole/method/deepseek_moe.hpp"
#include "mole/method/deepseek_v3.hpp"
#include "mole/method/dyn_mole.hpp"
#include "mole/method/dynamic_moe.hpp"
#include "mole/method/ld_mole.hpp"
#include "mole/method/llava_mole.hpp"
#include "mole/method/loramoe.hpp"
#include "mole/method/mola.hpp"
#include "mole/method/mola_allocation.hpp"
#include "mole/method/mofme.hpp"
#include "mole/method/mofme_uar.hpp"
#include "mole/method/mole_threshold.hpp"
#include "mole/method/switch_transformer.hpp"

namespace training {
namespace {

using mole::Index;
using Trace = mole::Trace<float>;

/// The options that all these methods share, for the mixture's experts.
template <class Options>
Options options_for() {
  Options options;
  options.experts = experts;
  options.rank = expert_rank;
  options.alpha = scale * double(expert_rank);
  options.dropout = 0;  // a few hundred steps on text that is never seen twice: nothing to regularize
  return options;
}

/// What a token uses of 8 experts of 4 ranks and a router with `further` parameters besides its 8 rows.
Touched touched_of_mixture(const Site& site, Index further = 0) {
  return {.always = router_parameters(site) + further, .each = lora_parameters(site, expert_rank)};
}

Method mola(const Execution& execution) {
  return {.name = "mola",
          .title = "MoLA, top-2 of 8 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::MolaOptions>();
                options.k = chosen;
                return Method::Layer(mole::mola(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site); },
          .loss = [](Trace& trace) { mole::load_balance(trace, {.coefficient = 1e-2}); }};
}

/// The same number of ranks over a model, but more experts at the top: 2, 4, 6, 8 in the four quarters of its blocks.
Method mola_allocation(const Execution& execution) {
  constexpr Index rank = 6;  // 5 experts on average: 30 ranks
  const auto experts_at = [](const Site& site) {
    return Index(mole::mola_allocation(mole::MolaShape::inverted_triangle, site.blocks).at(std::size_t(site.block)));
  };
  return {.name = "mola_allocation",
          .title = "MoLA, top-2 of 2, 4, 6, 8 x r6",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [=](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::MolaOptions>();
                options.experts = experts_at(site);
                options.rank = rank;
                options.k = chosen;
                options.alpha = scale * double(rank);
                return Method::Layer(mole::mola(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =
              [=](const Site& site) {
                return Touched{.always = router_parameters(site, experts_at(site)),
                               .each = lora_parameters(site, rank)};
              },
          .loss = [](Trace& trace) { mole::load_balance(trace, {.coefficient = 1e-2}); }};
}

/// LoRAMoE without its constraint, which asks for two kinds of tasks: all experts, mixed.
Method dense(const Execution& execution) {
  return {.name = "dense",
          .title = "LoRAMoE, all 8 x r4",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(mole::loramoe(options_for<mole::LoramoeOptions>(), site.base(), rng, execution),
                                     site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site); }};
}

/// One A for all experts, so that they may have more ranks.
Method hydralora(const Execution& execution) {
  constexpr Index rank = 6;
  return {.name = "hydralora",
          .title = "HydraLoRA, all 8 x r6, one A",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::LoramoeOptions>();
                options.rank = rank;
                options.alpha = scale * double(rank);
                options.shared_down = true;
                return Method::Layer(mole::loramoe(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = router_parameters(site) + rank * site.in(), .each = rank * site.out()};
              }};
}

Method llava_mole(const Execution& execution) {
  return {.name = "llava_mole",
          .title = "LLaVA-MoLE, top-1 of 8 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(
                    mole::llava_mole(options_for<mole::LlavaMoleOptions>(), site.base(), rng, execution),
                    site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site, experts); },
          .loss =
              [](Trace& trace) {
                mole::load_balance(trace, {.coefficient = 1e-2,
                                           .norm = mole::BalanceNorm::without_experts,
                                           .count = mole::BalanceCount::first_choice,
                                           .scope = mole::BalanceScope::sequence});
              }};
}

/// The best expert alone, and no more tokens for it than 1.25 times an even share.
Method switch_transformer(const Execution& execution) {
  return {.name = "switch_transformer",
          .title = "Switch, top-1 of 8 x r4, capacity",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(mole::switch_transformer(options_for<mole::SwitchTransformerOptions>(),
                                                              site.base(), rng, execution),
                                     site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site); },
          .loss =
              [](Trace& trace) {
                mole::load_balance(trace, {.coefficient = 1e-2, .count = mole::BalanceCount::first_choice});
              }};
}

Method mole_threshold(const Execution& execution) {
  return {.name = "mole_threshold",
          .title = "MoLE, p >= 1/8 of 8 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::MoleThresholdOptions>();
                options.threshold = 1 / double(experts);
                return Method::Layer(mole::mole_threshold(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site); },
          .loss =
              [](Trace& trace) {
                mole::load_balance(trace, {.coefficient = 1e-3, .norm = mole::BalanceNorm::k_at_uniform});
              }};
}

Method dynamic_moe(const Execution& execution) {
  return {.name = "dynamic_moe",
          .title = "Dynamic MoE, top-p 0.4 of 8 x r4",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(
                    mole::dynamic_moe(options_for<mole::DynamicMoeOptions>(), site.base(), rng, execution),
                    site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site); },
          .loss =
              [](Trace& trace) {
                mole::load_balance(trace, {.coefficient = 1e-2, .norm = mole::BalanceNorm::k_at_uniform});
                mole::router_entropy(trace, {.coefficient = 1e-4});
              }};
}

Method dyn_mole(const Execution& execution) {
  return {.name = "dyn_mole",
          .title = "DynMoLE, by entropy of 8 x r4",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(mole::dyn_mole(options_for<mole::DynMoleOptions>(), site.base(), rng, execution),
                                     site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site); },
          .loss =
              [](Trace& trace) {
                mole::router_entropy(
                    trace, {.coefficient = 1e-2, .normalized = true, .entropy = mole::DynMoleOptions{}.entropy});
                mole::load_balance(
                    trace,
                    {.coefficient = 1e-3, .norm = mole::BalanceNorm::k_at_uniform, .count = mole::BalanceCount::gates});
              }};
}

Method ada_mole(const Execution& execution) {
  return {.name = "ada_mole",
          .title = "AdaMoLE, own threshold, 8 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                return Method::Layer(mole::ada_mole(options_for<mole::AdaMoleOptions>(), site.base(), rng, execution),
                                     site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site, site.in() + 1); },
          .loss =
              [](Trace& trace) {
                mole::load_balance(trace, {.coefficient = 1e-3,
                                           .norm = mole::BalanceNorm::k_at_uniform,
                                           .score = mole::BalanceScore::above_threshold});
              }};
}

/// With a small network of lambda: the published one of 64 would have as many parameters as all experts together.
Method ld_mole(const Execution& execution) {
  constexpr Index hidden = 4;
  return {.name = "ld_mole",
          .title = "LD-MoLE, sparsegen of 8 x r4",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::LdMoleOptions>();
                options.hidden = hidden;
                return Method::Layer(mole::ld_mole(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched = [](const Site& site) { return touched_of_mixture(site, hidden * (site.in() + 2) + 1); },
          .loss = [](Trace& trace) {  // which losses is the paper's, the coefficients are ours
            mole::load_balance(trace, {.coefficient = 1e-3, .score = mole::BalanceScore::gates});
            mole::router_z(trace, {.coefficient = 1e-3});
            mole::sparsity_target(trace, {.coefficient = 1e-3, .k = chosen});
          }};
}

/// Two experts run, the next two rescale what these read.
Method compressed_experts(const Execution& execution) {
  return {.name = "compressed_experts",
          .title = "Compressed Experts, 2 + 2 of 8 x r4",
          .learning_rate = 1e-2,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::CompressedExpertsOptions>();
                options.main = options.auxiliary = chosen;
                return Method::Layer(mole::compressed_experts(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =  // of four pairs two run, and two are vectors
          [](const Site& site) {
            return Touched{.always = router_parameters(site),
                           .each = (lora_parameters(site, expert_rank) + site.in()) / 2};
          },
          .loss = [](Trace& trace) { mole::load_balance(trace, {.coefficient = 1e-2}); }};
}

/// Modulations of what the host's layer gives, which starts as it is.
template <class Make>
Method modulations(std::string name, std::string title, Make make) {
  return {
      .name = std::move(name),
      .title = std::move(title),
      .learning_rate = 1e-2,
      .routed = true,
      .build =
          [make](const Site& site, mole::Rng& rng) {
            const mole::MofmeOptions options{
                .experts = experts, .k = chosen, .form = mole::ModulationForm::diagonal, .residual = true};
            return Method::Layer(make(options, site.base(), rng), site.max_tokens);
          },
      .touched =
          [](const Site& site) { return Touched{.always = router_parameters(site) + experts, .each = 4 * site.out()}; },
      .loss = [](Trace& trace) { mole::load_balance(trace, {.coefficient = 1e-2}); }};
}

Method mofme(const Execution& execution) {
  return modulations("mofme", "MoFME, top-2 of 8 diagonal", [=](auto options, auto base, mole::Rng& rng) {
    return mole::mofme(options, std::move(base), rng, execution);
  });
}

Method mofme_uar(const Execution& execution) {
  return modulations("mofme_uar", "MoFME with UaR, top-2 of 8 diagonal", [=](auto options, auto base, mole::Rng& rng) {
    return mole::mofme_uar({.mofme = options}, std::move(base), rng, execution);
  });
}

/// Fine grain: experts of 2 ranks, two of them shared by all tokens.
Method deepseek_moe(const Execution& execution) {
  constexpr Index all = 15, shared = 2, rank = 2, k = 2;
  return {.name = "deepseek_moe",
          .title = "DeepSeekMoE, 2 + top-2 of 13 x r2",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::DeepseekMoeOptions>();
                options.experts = all;
                options.shared = shared;
                options.rank = rank;
                options.k = k;
                options.alpha = scale * double(rank);
                return Method::Layer(mole::deepseek_moe(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = router_parameters(site, all - shared), .each = lora_parameters(site, rank)};
              },
          .loss =
              [](Trace& trace) {
                mole::load_balance(trace, {.coefficient = 1e-2, .scope = mole::BalanceScope::sequence});
              }};
}

/// No loss: a bias in the choice is moved after each step.
Method deepseek_v3(const Execution& execution) {
  constexpr Index all = 14, shared = 2, rank = 2, k = 2, groups = 4, kept_groups = 2;
  return {.name = "deepseek_v3",
          .title = "DeepSeek-V3, 2 + top-2 of 4 x 3 x r2",
          .learning_rate = 7e-3,
          .routed = true,
          .build =
              [execution](const Site& site, mole::Rng& rng) {
                auto options = options_for<mole::DeepseekV3Options>();
                options.experts = all;
                options.shared = shared;
                options.rank = rank;
                options.k = k;
                options.groups = groups;
                options.kept_groups = kept_groups;
                options.alpha = scale * double(rank);
                return Method::Layer(mole::deepseek_v3(options, site.base(), rng, execution), site.max_tokens);
              },
          .touched =
              [](const Site& site) {
                return Touched{.always = router_parameters(site, all - shared), .each = lora_parameters(site, rank)};
              },
          .balancer = mole::SignBiasBalancer::Options{.rate = 1e-3}};
}

}  // namespace

std::vector<Method> methods_of_block_experts(const Execution& execution) {
  return {mola(execution),        mola_allocation(execution),    dense(execution),          hydralora(execution),
          llava_mole(execution),  switch_transformer(execution), mole_threshold(execution), dynamic_moe(execution),
          dyn_mole(execution),    ada_mole(execution),           ld_mole(execution),        deepseek_moe(execution),
          deepseek_v3(execution), compressed_experts(execution), mofme(execution),          mofme_uar(execution)};
}

}  // namespace training
