// SPDX-License-Identifier: MIT
// Found, open(): what lies at a path.
#pragma once

#include "mole/io/gguf/gguf_reader.hpp"
#include "mole/io/layer/layer_file.hpp"
#include "mole/io/moe_peft/read_moe_peft.hpp"
#include "mole/io/peft/read_peft.hpp"
#include "mole/io/safetensors_shards.hpp"
#include "mole/io/xlora/read_xlora.hpp"

#include <filesystem>
#include <memory>
#include <variant>
#include <vector>

namespace inspect {

/// X-LoRA whose adapters may lie elsewhere.
struct FoundXlora {
  mole::XloraConfig config;
  mole::SafetensorsShards classifier;
  std::vector<mole::PeftAdapter> adapters;
};
/// Safetensors of any content.
struct FoundTensors {
  mole::SafetensorsShards tensors;
};
/// With the tensors for a look at their numbers.
struct FoundLayers {
  std::unique_ptr<mole::LayerReader> layers;
  mole::SafetensorsShards tensors;
};

/// A folder of peft may hold several adapters.
using Found = std::variant<std::vector<mole::PeftAdapter>, FoundXlora, mole::MoePeftAdapter, mole::GgufReader,
                           FoundLayers, FoundTensors>;

/// Throws mole::Error for what it cannot read.
Found open(const std::filesystem::path& path);

}  // namespace inspect
