// SPDX-License-Identifier: MIT
// Presets and layers.
#include "mole/c/handles.hpp"
#include "mole/core/transposed.hpp"
#include "mole/router/module_gates.hpp"

#include <vector>

namespace mole::c {
namespace {

/// As it lies in memory: [O x I] or [I x O].
View<const float> memory_of(const mole_weight& weight, const char* function) {
  require(weight.layout == MOLE_OUT_IN || weight.layout == MOLE_IN_OUT, ErrorCode::option, function,
          ": expected a layout of MOLE_OUT_IN or MOLE_IN_OUT, found ", weight.layout);
  require(weight.out >= 1 && weight.in >= 1, ErrorCode::shape, function,
          ": expected a weight of at least 1 output and 1 input, found ", weight.out, " and ", weight.in);
  const bool out_in = weight.layout == MOLE_OUT_IN;
  const Index rows = out_in ? weight.out : weight.in, cols = out_in ? weight.in : weight.out;
  const Index stride = weight.stride == 0 ? cols : weight.stride;
  require(stride >= cols, ErrorCode::shape, function, ": expected a stride of 0 or at least ", cols, ", found ",
          weight.stride);
  checked_product(function, checked_product(function, rows, stride), Index(sizeof(float)));
  return {weight.data, rows, cols, stride};
}

Base base_of(const mole_weight& weight, Given given, const char* function) {
  const View<const float> memory = memory_of(weight, function);
  if (given == Given::sizes || given == Given::sizes_of_block)
    return Base(DenseBase(View<const float>(nullptr, weight.out, weight.in)));
  require_pointer(weight.data, function, "weight->data");
  const std::span<const float> bias(weight.bias, weight.bias == nullptr ? 0 : std::size_t(weight.out));
  if (weight.layout == MOLE_IN_OUT) {
    require(weight.pack != 0, ErrorCode::option, function,
            ": expected pack = 1 for a weight of layout MOLE_IN_OUT, as only [O x I] can be borrowed, found 0");
    return Base(PackedBase<float>(Transposed<float>(memory), bias));
  }
  if (weight.pack != 0) return Base(PackedBase<float>(memory, bias));
  return Base(DenseBase(memory, bias));
}

/// [O x I] in memory of its own.
std::shared_ptr<const Matrix<float>> copy_of(const mole_weight& weight, const char* function) {
  const View<const float> memory = memory_of(weight, function);
  auto copy = std::make_shared<Matrix<float>>(weight.out, weight.in);
  for (Index o = 0; o < weight.out; ++o)
    for (Index i = 0; i < weight.in; ++i) (*copy)(o, i) = weight.layout == MOLE_OUT_IN ? memory(o, i) : memory(i, o);
  return copy;
}

/// The layer of a site; `reader` has its options.
std::unique_ptr<mole_layer> layer_at(Site& site, const Preset& preset, OptionReader& reader,
                                     const LayerThreads& threads) {
  std::string text;
  auto layer = std::make_unique<mole_layer>(preset.make(reader, site, text), threads);
  layer->preset = preset.name, layer->options = std::move(text);
  layer->renew_router = std::move(site.renew_router);
  return layer;
}

std::unique_ptr<mole_layer> made_layer(const char* name, const char* options, const mole_weight& weight,
                                       const mole_layer* owner) {
  constexpr const char* function = "mole_layer_create";
  const Preset& preset = preset_named(name);
  require(!preset.is_block(), ErrorCode::option, function, ": expected a preset with one weight, found ", preset.name,
          ", a block with three: mole_layer_create_block()");
  OptionReader reader(preset.name, options);
  const LayerThreads threads;
  std::shared_ptr<const Matrix<float>> copy;
  bool holds_weight = false;
  Site site{.base = base_of(weight, preset.given, function), .execution = Execution(threads), .weight = [&] {
              holds_weight = true;
              if (weight.pack == 0) return memory_of(weight, function);
              copy = copy_of(weight, function);
              return copy->view();
            }};
  if (owner != nullptr) {
    require(owner->shared != nullptr, ErrorCode::option, preset.name,
            ": expected to share with a layer that has a pool, found one of ", owner->preset);
    site.shared = owner->shared;
  }
  auto layer = layer_at(site, preset, reader, threads);
  require(owner == nullptr || site.attach, ErrorCode::option, preset.name,
          ": expected a preset whose layers share a pool, found one whose layers share nothing");
  if (site.attach) {
    layer->shared = std::move(site.shared), layer->owns_shared = owner == nullptr;
    layer->attach = std::move(site.attach);
    layer->attach(layer->any);
  }
  layer->layout = parameter_layout(*layer);
  layer->weight = std::move(copy), layer->holds_weight = holds_weight;
  return layer;
}

std::unique_ptr<mole_layer> made_block(const char* name, const char* options, const mole_weight& gate,
                                       const mole_weight& up, const mole_weight& down) {
  constexpr const char* function = "mole_layer_create_block";
  const Preset& preset = preset_named(name);
  require(preset.is_block(), ErrorCode::option, function, ": expected a preset that is a block, found ", preset.name,
          ", which has one weight: mole_layer_create()");
  OptionReader reader(preset.name, options);
  const LayerThreads threads;
  Site site{.base = base_of(gate, preset.given, function), .execution = Execution(threads), .weight = {}};
  site.up = base_of(up, preset.given, function), site.down = base_of(down, preset.given, function);
  auto layer = layer_at(site, preset, reader, threads);
  layer->layout = parameter_layout(*layer);
  layer->holds_weight = true;
  return layer;
}

}  // namespace
}  // namespace mole::c

using namespace mole;
using namespace mole::c;

// ---- presets

mole_index mole_preset_count(void) {
  return guarded_or<mole_index>(-1, [] { return Index(all_presets().size()); });
}

const char* mole_preset_name(mole_index number) {
  return guarded_or<const char*>(nullptr, [&] {
    const auto presets = all_presets();
    require(number >= 0 && number < Index(presets.size()), ErrorCode::option,
            "mole_preset_name: expected a number from 0 to ", presets.size() - 1, ", found ", number);
    return presets[std::size_t(number)].name;
  });
}

const char* mole_preset_options(const char* preset) {
  return guarded_or<const char*>(nullptr, [&] {
    require_pointer(preset, "mole_preset_options", "preset");
    static const std::vector<std::string> defaults = [] {
      std::vector<std::string> texts;
      for (const Preset& each : all_presets()) texts.push_back(each.defaults());
      return texts;
    }();
    return defaults[std::size_t(&preset_named(preset) - all_presets().data())].c_str();
  });
}

int mole_preset_is_block(const char* preset) {
  return guarded_or<int>(-1, [&] {
    require_pointer(preset, "mole_preset_is_block", "preset");
    return int(preset_named(preset).is_block());
  });
}

// ---- layers

mole_status mole_layer_create(const char* preset, const char* options, const mole_weight* weight, mole_layer** layer) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_create", "layer");
    *layer = nullptr;
    require_pointer(preset, "mole_layer_create", "preset");
    require_pointer(weight, "mole_layer_create", "weight");
    *layer = made_layer(preset, options, *weight, nullptr).release();
  });
}

mole_status mole_layer_create_block(const char* preset, const char* options, const mole_weight* gate,
                                    const mole_weight* up, const mole_weight* down, mole_layer** layer) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_create_block";
    require_pointer(layer, function, "layer");
    *layer = nullptr;
    require_pointer(preset, function, "preset");
    require_pointer(gate, function, "gate");
    require_pointer(up, function, "up");
    require_pointer(down, function, "down");
    *layer = made_block(preset, options, *gate, *up, *down).release();
  });
}

mole_status mole_layer_create_sharing(const char* preset, const char* options, const mole_weight* weight,
                                      mole_layer* owner, mole_layer** layer) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_create_sharing";
    require_pointer(layer, function, "layer");
    *layer = nullptr;
    require_pointer(preset, function, "preset");
    require_pointer(weight, function, "weight");
    require_pointer(owner, function, "owner");
    *layer = made_layer(preset, options, *weight, owner).release();
  });
}

mole_status mole_layer_clone(const mole_layer* layer, mole_layer** copy) {
  return guarded([&] {
    require_pointer(copy, "mole_layer_clone", "copy");
    *copy = nullptr;
    require_pointer(layer, "mole_layer_clone", "layer");
    require(layer->shared == nullptr, ErrorCode::option,
            "mole_layer_clone: expected a layer with numbers of its own, found one of ", layer->preset,
            ", which shares some: create another");
    auto made = std::make_unique<mole_layer>(layer->any.clone(), layer->threads);
    made->layout = layer->layout;
    made->preset = layer->preset, made->options = layer->options;
    made->weight = layer->weight, made->holds_weight = layer->holds_weight;
    made->renew_router = layer->renew_router;
    *copy = made.release();
  });
}

void mole_layer_destroy(mole_layer* layer) {
  delete layer;
}

mole_index mole_layer_in(const mole_layer* layer) {
  return guarded_or<mole_index>(-1, [&] {
    require_pointer(layer, "mole_layer_in", "layer");
    return layer->any.in();
  });
}

mole_index mole_layer_out(const mole_layer* layer) {
  return guarded_or<mole_index>(-1, [&] {
    require_pointer(layer, "mole_layer_out", "layer");
    return layer->any.out();
  });
}

const char* mole_layer_preset(const mole_layer* layer) {
  return guarded_or<const char*>(nullptr, [&] {
    require_pointer(layer, "mole_layer_preset", "layer");
    return layer->preset.c_str();
  });
}

const char* mole_layer_options(const mole_layer* layer) {
  return guarded_or<const char*>(nullptr, [&] {
    require_pointer(layer, "mole_layer_options", "layer");
    return layer->options.c_str();
  });
}

mole_status mole_layer_set_weight(mole_layer* layer, const mole_weight* weight) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_set_weight";
    require_pointer(layer, function, "layer");
    require_pointer(weight, function, "weight");
    require(!layer->holds_weight, ErrorCode::option, function, ": expected experts beside the weight, found those of ",
            layer->preset, ", which compute with it: create the layer again");
    layer->any.set_base(base_of(*weight, Given::weight, function));
  });
}

mole_status mole_layer_set_trainable(mole_layer* layer, int router, int experts) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_set_trainable", "layer");
    layer->any.set_trainable({.router = router != 0, .experts = experts != 0});
    layer->gradients_bound = false;
    if (layer->owns_shared) {
      layer->shared->move_gradients(memory_of_its_own);
      layer->shared->zero_gradients();
    }
    if (layer->attach) layer->attach(layer->any);
  });
}

mole_status mole_layer_renew_router(mole_layer* layer) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_renew_router", "layer");
    require(bool(layer->renew_router), ErrorCode::option,
            "mole_layer_renew_router: expected a layer of arrow, found one of ", layer->preset);
    layer->renew_router(layer->any);
  });
}

mole_status mole_layer_discretize(mole_layer* layer, double ratio) {
  return guarded([&] {
    constexpr const char* function = "mole_layer_discretize";
    require_pointer(layer, function, "layer");
    auto* const gates = dynamic_cast<TrainedPool<ModuleGates<float>>*>(layer->shared.get());
    require(gates != nullptr, ErrorCode::option, function, ": expected a layer of diffora, found one of ",
            layer->preset);
    if (ratio < 0)
      gates->pool->relax();
    else
      gates->pool->discretize(ratio);
  });
}

mole_status mole_layer_merge(const mole_layer* layer, float* weight) {
  return guarded([&] {
    require_pointer(layer, "mole_layer_merge", "layer");
    require_pointer(weight, "mole_layer_merge", "weight");
    layer->any.merge_into({weight, layer->any.out(), layer->any.in()});
  });
}
