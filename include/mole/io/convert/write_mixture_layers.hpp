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

namespace detail {
/// The sizes of MixLoRA's block: those of its router and of whichever map has experts.
struct MoePeftBlockSizes {
  Index in = 0, hidden = 0;
};
inline MoePeftBlockSizes moe_peft_block_sizes(const MoePeftAdapter& adapter, const std::string& path) {
  MoePeftBlockSizes sizes{.in = adapter.at(path).gate->shape()[1]};
  for (const char* const map : {".gate_proj", ".up_proj", ".down_proj"})
    if (const auto found = adapter.modules.find(path + map); found != adapter.modules.end()) {
      const MoePeftPair& pair = found->second.experts.front();
      sizes.hidden = std::string(map) == ".down_proj" ? pair.a->shape()[1] : pair.b->shape()[0];
    }
  require(sizes.hidden > 0, ErrorCode::option, adapter.source, ": expected experts of the block '", path,
          "', found none");
  return sizes;
}
}  // namespace detail

/// Each module a layer: of the method mola, loramoe or dyn_mole, lora without experts; a block of MixLoRA, whose
/// activation is SiLU, of the method mixlora, mixlora_dynamic or mixlora_switch. base_of(path, in, out) is the base of
/// a module, whose fingerprint is written: NoBase for none. Throws Error(option) for other activations, Error(shape)
/// for a base that does not fit.
template <class BaseOf>
void write_mixture_layers(const std::filesystem::path& file, const MoePeftAdapter& adapter, BaseOf&& base_of) {
  const MoePeftLayers<float> layers(adapter);
  LayerWriter writer;
  for (const auto& [path, module] : adapter.modules) {
    if (module.gate && module.experts.empty()) {
      const auto [in, hidden] = detail::moe_peft_block_sizes(adapter, path);
      auto gate = base_of(path + ".gate_proj", in, hidden), up = base_of(path + ".up_proj", in, hidden);
      AnyLinear<float> block = layers.block(path, gate, up, base_of(path + ".down_proj", hidden, in));
      writer.add<decltype(gate)>(path, block, block_kinds<float>());
    } else if (module.single || adapter.config.kind != MoePeftKind::mixlora) {
      const MoePeftPair& pair = module.single ? *module.single : module.experts.front();
      auto base = base_of(path, pair.a->shape()[1], pair.b->shape()[0]);
      AnyLinear<float> layer = layers.layer(path, base);
      writer.add<decltype(base)>(path, layer);
    }
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
