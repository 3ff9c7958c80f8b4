// SPDX-License-Identifier: MIT
// Presets that are one adapter for every token, or one for each task.
#include "mole/c/preset.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/method/adalora.hpp"
#include "mole/method/codyra.hpp"
#include "mole/method/dora.hpp"
#include "mole/method/loha.hpp"
#include "mole/method/lokr.hpp"
#include "mole/method/mtl_lora.hpp"
#include "mole/method/nola.hpp"
#include "mole/method/oft.hpp"
#include "mole/method/poly.hpp"
#include "mole/method/randlora.hpp"
#include "mole/method/sora.hpp"
#include "mole/method/vera.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

namespace mole::c {

template <>
struct Words<GateStart> {
  static constexpr const char* words[] = {"normal", "ones"};
};
template <>
struct Words<NolaVariant> {
  static constexpr const char* words[] = {"llm", "vit"};
};
template <>
struct Words<RotationForm> {
  static constexpr const char* words[] = {"neumann", "cayley"};
};
template <>
struct Words<BasisPairing> {
  static constexpr const char* words[] = {"formula", "flattened"};
};
template <>
struct Words<BasisDistribution> {
  static constexpr const char* words[] = {"uniform", "ternary", "sparse_ternary"};
};

namespace {

/// What make() makes, shared by all that ask for it with this key while one of them lives: layers of a model have the
/// frozen numbers of their method in common.
template <class Made, class Key>
std::shared_ptr<const Made> shared_by_key(const Key& key, auto make) {
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<const Made>> all;
  const std::lock_guard lock(mutex);
  std::erase_if(all, [](const auto& entry) { return entry.second.expired(); });
  if (const auto found = all.find(key); found != all.end())
    if (auto made = found->second.lock()) return made;
  std::shared_ptr<const Made> made = make();
  all[key] = made;
  return made;
}

/// The pair of A and B, for the widest layer; 0: this one.
struct Vera : VeraOptions {
  Index rank = 256, widest_in = 0, widest_out = 0;
  std::uint64_t pair_seed = 0;
};

auto vera_layer(const Vera& o, Site& s) {
  const Index in = o.widest_in != 0 ? o.widest_in : s.base.in(), out = o.widest_out != 0 ? o.widest_out : s.base.out();
  auto pair = shared_by_key<FrozenPair<float>>(std::tuple(o.rank, in, out, o.pair_seed), [&] {
    Rng rng(o.pair_seed);
    return FrozenPair<float>::random(o.rank, in, out, rng);
  });
  return vera(o, std::move(pair), s.base, s.rng, s.execution);
}

/// The bases, for the layer of the largest sides; 0: this one.
struct Randlora : RandloraOptions {
  Index rank = 32, largest_small_side = 0, largest_large_side = 0;
  BasisDistribution distribution = BasisDistribution::uniform;
  bool keep = true;
  std::uint64_t basis_seed = 0;
};

auto randlora_layer(const Randlora& o, Site& s) {
  const auto [small, large] = std::minmax({s.base.in(), s.base.out()});
  const DiagonalBases<float>::Options options{.rank = o.rank,
                                              .small_side = o.largest_small_side != 0 ? o.largest_small_side : small,
                                              .large_side = o.largest_large_side != 0 ? o.largest_large_side : large,
                                              .distribution = o.distribution,
                                              .keep = o.keep,
                                              .seed = o.basis_seed};
  auto bases =
      shared_by_key<DiagonalBases<float>>(std::tuple(options.rank, options.small_side, options.large_side,
                                                     options.distribution, options.keep, options.seed),
                                          [&] { return std::make_shared<const DiagonalBases<float>>(options); });
  return randlora(o, std::move(bases), s.base, s.rng, s.execution);
}

/// Tasks are the experts that mole_pass.forced names; a token without one is of task 0.
auto by_task(auto layer, Index tasks, Site& s) {
  return MixtureLinear(NoRouter<float>(tasks), Gate{Identity{}, TopK{.k = 1}, Unit{}}, std::move(layer.experts()),
                       s.base, s.execution);
}

}  // namespace

std::vector<Preset> single_adapter_presets() {
  return {
      preset<SoraOptions>(
          "sora", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("start", o.start); },
          [](const auto& o, Site& s) { return sora(o, s.base, s.rng, s.execution); }),
      preset<CodyraOptions>(
          "codyra", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("start", o.start); },
          [](const auto& o, Site& s) { return codyra(o, s.base, s.rng, s.execution); }),
      preset<AdaloraOptions>("adalora", shared_options,
                             [](const auto& o, Site& s) { return adalora(o, s.base, s.rng, s.execution); }),
      preset<LohaOptions>("loha", shared_options,
                          [](const auto& o, Site& s) { return loha(o, s.base, s.rng, s.execution); }),
      preset<LokrOptions>(
          "lokr",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o), f("factor", o.factor), f("decompose_both", o.decompose_both);
          },
          [](const auto& o, Site& s) { return lokr(o, s.base, s.rng, s.execution); }),
      preset<DoraOptions>(
          "dora", [](OptionVisitor& f, auto& o) { shared_options(f, o), f("exact_norm", o.exact_norm); },
          [](const auto& o, Site& s) { return dora(o, s.weight(), s.base, s.rng, s.execution); }),
      preset<OftOptions>(
          "oft",
          [](OptionVisitor& f, auto& o) {
            f("block", o.block), f("shared_block", o.shared_block), f("form", o.form), f("terms", o.terms);
            f("dropout", o.dropout);
          },
          [](const auto& o, Site& s) { return oft(o, s.weight(), s.base, s.rng, s.execution); }),
      preset<Vera>(
          "vera",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o), f("start", o.start);
            f("widest_in", o.widest_in), f("widest_out", o.widest_out), f("pair_seed", o.pair_seed);
          },
          [](const auto& o, Site& s) { return vera_layer(o, s); }),
      preset<Randlora>(
          "randlora",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o);
            f("over_root_of_bases", o.over_root_of_bases), f("pairing", o.pairing);
            f("largest_small_side", o.largest_small_side), f("largest_large_side", o.largest_large_side);
            f("distribution", o.distribution), f("keep", o.keep), f("basis_seed", o.basis_seed);
          },
          [](const auto& o, Site& s) { return randlora_layer(o, s); }),
      preset<NolaOptions>(
          "nola",
          [](OptionVisitor& f, auto& o) {
            shared_options(f, o), f("bases", o.bases), f("variant", o.variant), f("basis_seed", o.seed);
            f("keep", o.keep);
          },
          [](const auto& o, Site& s) { return nola(o, s.base, s.rng, s.execution); }),
      preset<PolyOptions>(
          "poly",
          [](OptionVisitor& f, auto& o) {
            f("tasks", o.tasks), f("skills", o.skills), f("splits", o.splits), f("relaxed", o.relaxed);
            shared_options(f, o);
          },
          [](const auto& o, Site& s) { return by_task(poly(o, s.base, s.rng, s.execution), o.tasks, s); }),
      preset<MtlLoraOptions>(
          "mtl_lora",
          [](OptionVisitor& f, auto& o) {
            f("tasks", o.tasks), f("up_matrices", o.up_matrices), f("temperature", o.temperature);
            f("diagonal", o.diagonal);
            shared_options(f, o);
          },
          [](const auto& o, Site& s) { return by_task(mtl_lora(o, s.base, s.rng, s.execution), o.tasks, s); }),
  };
}

}  // namespace mole::c
