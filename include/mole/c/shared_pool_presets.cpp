// SPDX-License-Identifier: MIT
// Presets whose layers train a pool together.
#include "mole/c/preset.hpp"
#include "mole/core/error.hpp"
#include "mole/method/diffora.hpp"
#include "mole/method/mos.hpp"
#include "mole/method/vblora.hpp"

namespace mole::c {

template <>
struct Words<ModuleRelaxation> {
  static constexpr const char* words[] = {"softmax", "sigmoid"};
};

namespace {

/// The pool of the layer that is to be shared with, or one of this layer's own, made(). Throws Error(option) for a
/// layer of another preset, or with a pool of other options.
template <class Pool>
TrainedPool<Pool>& pool_of(Site& site, const char* preset, const typename Pool::Options& options, auto same,
                           auto made) {
  if (!site.shared) {
    site.shared = std::make_shared<TrainedPool<Pool>>("pool", made());
  } else {
    const auto* const found = dynamic_cast<const TrainedPool<Pool>*>(site.shared.get());
    require(found != nullptr, ErrorCode::option, preset,
            ": expected to share with a layer of this preset, found another");
    require(same(found->pool->options(), options), ErrorCode::option, preset,
            ": expected the options of the pool as in the layer to share with, found others");
  }
  return static_cast<TrainedPool<Pool>&>(*site.shared);
}

/// The options of the pool, of which every layer has a number.
struct Mos : MosOptions {
  ShardPool<float>::Options pool;
};

auto mos_layer(const Mos& o, Site& s) {
  using Pool = ShardPool<float>;
  Pool::Options options = o.pool;
  options.in = s.base.in(), options.out = s.base.out();
  auto& trained = pool_of<Pool>(
      s, "mos", options,
      [](const auto& a, const auto& b) {
        return a.in == b.in && a.out == b.out && a.layers == b.layers && a.pool_rank == b.pool_rank &&
               a.rank == b.rank && a.private_rank == b.private_rank && a.shards == b.shards;
      },
      [&] { return Pool(options, s.rng); });
  auto layer = mos(o, trained.pool, s.base, s.rng, s.execution);
  s.attach = [&trained](AnyLinear<float>& any) {
    any.gradients<decltype(layer)>()->experts.pool = any.trainable().experts ? &trained.gradients : nullptr;
  };
  return layer;
}

/// The options of the bank.
struct Vblora : VbloraOptions {
  VectorBank<float>::Options bank;
};

auto vblora_layer(const Vblora& o, Site& s) {
  using Bank = VectorBank<float>;
  auto& trained = pool_of<Bank>(
      s, "vblora", o.bank,
      [](const auto& a, const auto& b) { return a.vectors == b.vectors && a.length == b.length && a.bound == b.bound; },
      [&] { return Bank(o.bank, s.rng); });
  auto layer = vblora(o, trained.pool, s.base, s.rng, s.execution);
  s.attach = [&trained](AnyLinear<float>& any) {
    any.gradients<decltype(layer)>()->experts.bank = any.trainable().experts ? &trained.gradients : nullptr;
  };
  return layer;
}

/// The options of the gates.
struct Diffora : DifforaOptions {
  ModuleGates<float>::Options gates = {.layers = 1, .modules = 1};
};

auto diffora_layer(const Diffora& o, Site& s) {
  using Gates = ModuleGates<float>;
  auto& trained = pool_of<Gates>(
      s, "diffora", o.gates,
      [](const auto& a, const auto& b) {
        return a.layers == b.layers && a.modules == b.modules && a.relaxation == b.relaxation;
      },
      [&] { return Gates(o.gates); });
  auto layer = diffora(o, trained.pool, s.base, s.rng, s.execution);
  s.attach = [&trained](AnyLinear<float>& any) {
    any.gradients<decltype(layer)>()->router.gates = any.trainable().router ? &trained.gradients : nullptr;
  };
  return layer;
}

}  // namespace

std::vector<Preset> shared_pool_presets() {
  return {
      preset<Mos>(
          "mos",
          [](OptionVisitor& f, auto& o) {
            f("layers", o.pool.layers), f("layer", o.layer), f("pool_rank", o.pool.pool_rank), f("rank", o.pool.rank);
            f("private_rank", o.pool.private_rank), f("shards", o.pool.shards);
            shared_options(f, o);
          },
          [](const auto& o, Site& s) { return mos_layer(o, s); }),
      preset<Vblora>(
          "vblora",
          [](OptionVisitor& f, auto& o) {
            f("vectors", o.bank.vectors), f("length", o.bank.length), f("bound", o.bank.bound);
            f("deviation", o.deviation);
            shared_options(f, o);
          },
          [](const auto& o, Site& s) { return vblora_layer(o, s); }),
      preset<Diffora>(
          "diffora",
          [](OptionVisitor& f, auto& o) {
            f("layers", o.gates.layers), f("modules", o.gates.modules), f("relaxation", o.gates.relaxation);
            f("layer", o.layer), f("module", o.module);
            shared_options(f, o);
          },
          [](const auto& o, Site& s) { return diffora_layer(o, s); }),
  };
}

}  // namespace mole::c
