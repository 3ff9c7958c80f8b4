// SPDX-License-Identifier: MIT
// write_mixture_layers(): a mixture of MoE-PEFT or of a fork of peft as a file of layers.
#pragma once

#include "mole/execution/default_execution.hpp"
#include "mole/io/layer/layer_file.hpp"
#include "mole/io/moe_peft/moe_peft_layers.hpp"
#include "mole/io/peft/peft_mixtures.hpp"

#include <filesystem>
#include <string>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// MoLA, LoRAMoE and DynMoLE, each module a layer of the method mola, loramoe or dyn_mole, or lora without experts.
/// base_of(path, in, out) is the base of a module, whose fingerprint is written: NoBase for none. Throws Error(option)
/// for MixLoRA, whose experts are feed-forward blocks; Error(shape) for a base that does not fit.
template <class BaseOf>
void write_mixture_layers(const std::filesystem::path& file, const MoePeftAdapter& adapter, BaseOf&& base_of) {
  require(adapter.config.kind != MoePeftKind::mixlora, ErrorCode::option, adapter.source,
          ": expected experts of linear layers, found MixLoRA, whose experts are feed-forward blocks");
  const MoePeftLayers<float> layers(adapter);
  LayerWriter writer;
  for (const auto& [path, module] : adapter.modules) {
    const MoePeftPair& pair = module.single ? *module.single : module.experts.front();
    auto base = base_of(path, pair.a->shape()[1], pair.b->shape()[0]);
    AnyLinear<float> layer = layers.layer(path, base);
    writer.add<decltype(base)>(path, layer);
  }
  writer.write(file);
}

/// HydraLoRA, FlyLoRA and SMoRA as their releases save them: layers of the methods loramoe, flylora and smora. Throws
/// Error(option) for an adapter that is no mixture.
template <class BaseOf>
void write_mixture_layers(const std::filesystem::path& file, const PeftAdapter& adapter, BaseOf&& base_of) {
  require(is_mixture(adapter.config.kind), ErrorCode::option, adapter.source, ": expected a mixture, found ",
          name_of(adapter.config.kind));
  const PeftMixtures<float> mixtures(adapter);
  LayerWriter writer;
  for (const PeftModule& module : adapter.modules) {
    const char* const b = adapter.config.kind == PeftKind::hydralora ? "lora_B0.weight" : "lora_B.weight";
    const Index in = adapter.tensor(module, "lora_A.weight").shape()[1], out = adapter.tensor(module, b).shape()[0];
    mixtures.visit(module.path, base_of(module.path, in, out), DefaultExecution{},
                   [&](auto layer) { writer.add(module.path, layer); });
  }
  writer.write(file);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
