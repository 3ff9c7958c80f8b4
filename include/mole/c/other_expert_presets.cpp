// SPDX-License-Identifier: MIT
// Presets with experts of their own kind: ranks, maps, compressed experts, prompts.
#include "mole/c/preset.hpp"
#include "mole/method/compressed_experts.hpp"
#include "mole/method/flylora.hpp"
#include "mole/method/mofme.hpp"
#include "mole/method/mofme_uar.hpp"
#include "mole/method/moram.hpp"
#include "mole/method/prompt_bank.hpp"
#include "mole/method/smora.hpp"

namespace mole::c {

template <>
struct Words<FlySelect> {
  static constexpr const char* words[] = {"magnitude", "signed_value"};
};
template <>
struct Words<CompressedGates> {
  static constexpr const char* words[] = {"raw", "renormalized"};
};
template <>
struct Words<MofmeGates> {
  static constexpr const char* words[] = {"renormalized", "raw"};
};
template <>
struct Words<ModulationForm> {
  static constexpr const char* words[] = {"vector", "diagonal", "low_rank", "full"};
};

namespace {

/// Two types by their gates.
struct Compressed : CompressedExpertsOptions {
  CompressedGates gates = CompressedGates::raw;
};
struct Mofme : MofmeOptions {
  MofmeGates gates = MofmeGates::renormalized;
};

void show_mofme(OptionVisitor& f, MofmeOptions& o) {
  shared_options(f, o);
  f("form", o.form), f("residual", o.residual), f("random", o.random);
}

}  // namespace

std::vector<Preset> other_expert_presets() {
  return {
      preset<SmoraOptions>(
          "smora", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("rank_partition", o.rank_partition); },
          [](const auto& o, Site& s) { return smora(o, s.base, s.rng, s.execution); }),
      preset<FlyloraOptions>(
          "flylora",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o), f("nonzeros", o.nonzeros), f("select", o.select), f("detached", o.detached);
          },
          [](const auto& o, Site& s) { return flylora(o, s.base, s.rng, s.execution); }),
      preset<MoramOptions>(
          "moram",
          [](OptionVisitor& f, auto& o) {
            f("ranks", o.ranks), f("k", o.k), f("temperature", o.temperature), f("min_score", o.min_score);
            f("dropout", o.dropout), f("eps", o.eps);
          },
          [](const auto& o, Site& s) { return moram(o, s.base, s.rng, s.execution); }),
      preset<Compressed>(
          "compressed_experts",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o), f("main", o.main), f("auxiliary", o.auxiliary), f("gates", o.gates);
          },
          [](const auto& o, Site& s) {
            constexpr auto renormalized = CompressedGates::renormalized;
            return o.gates == renormalized
                       ? AnyLinear<float>(compressed_experts<renormalized>(o, s.base, s.rng, s.execution), 1)
                       : AnyLinear<float>(compressed_experts(o, s.base, s.rng, s.execution), 1);
          }),
      preset<Mofme>(
          "mofme", [](OptionVisitor& f, auto& o) { show_mofme(f, o), f("gates", o.gates); },
          [](const auto& o, Site& s) {
            constexpr auto raw = MofmeGates::raw;
            return o.gates == raw ? AnyLinear<float>(mofme<raw>(o, s.base, s.rng, s.execution), 1)
                                  : AnyLinear<float>(mofme(o, s.base, s.rng, s.execution), 1);
          }),
      preset<MofmeUarOptions>(
          "mofme_uar",
          [](OptionVisitor& f, auto& o) {
            show_mofme(f, o.mofme);
            f("samples", o.samples), f("dropout", o.dropout), f("full_gradient", o.full_gradient);
          },
          [](const auto& o, Site& s) { return mofme_uar(o, s.base, s.rng, s.execution); }),
      preset<PromptBankOptions>(
          "prompt_bank",
          [](OptionVisitor& f, auto& o) {
            f("entries", o.entries), f("k", o.k), f("temperature", o.temperature), f("deviation", o.deviation);
          },
          [](const auto& o, Site& s) {
            PromptBankOptions sized = o;
            sized.in = s.base.in(), sized.prompt = s.base.out();
            return prompt_bank<float>(sized, s.rng, s.execution);
          },
          Given::sizes),
  };
}

}  // namespace mole::c
