// SPDX-License-Identifier: MIT
// write_peft(), gguf_lora(), write_lora_layers(): plain LoRAs in the format of peft, of llama.cpp and in layer files.
#pragma once

#include "mole/execution/default_execution.hpp"
#include "mole/io/convert/plain_loras.hpp"
#include "mole/io/gguf/gguf_lora.hpp"
#include "mole/io/gguf/gguf_names.hpp"
#include "mole/io/layer/layer_file.hpp"
#include "mole/io/peft/peft_writer.hpp"
#include "mole/method/one_adapter.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
inline LowRank<DenseFactors<float>> expert_of(const Adapter<float>& adapter, double dropout) {
  return {DenseFactors<float>(RankBlocks::uniform(1, adapter.rank()), {adapter.a, adapter.b}),
          {float(adapter.scale)},
          {.rate = dropout, .stream = 1}};
}
}  // namespace detail

/// A folder that peft loads; as PeftWriter::write(), which says what is thrown.
inline void write_peft(const std::filesystem::path& folder, const PlainLoras& loras, Dtype dtype = Dtype::f32) {
  PeftWriter writer({.base = loras.base, .task = loras.task, .dropout = loras.dropout, .dtype = dtype});
  for (const auto& [path, adapter] : loras.modules) {
    if (loras.embeddings.contains(path))
      writer.add_embedding(path, detail::expert_of(adapter, 0));
    else
      writer.add(path, adapter);
  }
  writer.write(folder);
}

/// For write_gguf_lora(). `architecture` is that of the base's file: one of "llama" has rows of q and k in an order of
/// its own, for which write_gguf_lora() is told the numbers of heads. Throws Error(option) for a module that models of
/// the family of Llama do not have (gguf_name()).
inline GgufLora gguf_lora(const PlainLoras& loras, std::string architecture) {
  GgufLora lora{.architecture = std::move(architecture)};
  for (const auto& [path, adapter] : loras.modules) {
    const std::optional<std::string> name = gguf_name(path);
    require(name.has_value(), ErrorCode::option,
            "gguf_lora: expected modules of a model of the family of Llama, found '", path, "'");
    lora.adapters[*name] = {adapter};
  }
  return lora;
}

/// A file of layers of the method "lora". base_of(path, in, out) is the base of a module, whose fingerprint is written:
/// NoBase for none. Throws Error(option) for embeddings, which are no linear layers, Error(shape) for a base that does
/// not fit.
template <class BaseOf>
void write_lora_layers(const std::filesystem::path& file, const PlainLoras& loras, BaseOf&& base_of) {
  require(loras.embeddings.empty(), ErrorCode::option, "write_lora_layers: expected linear layers, found the table '",
          loras.embeddings.empty() ? "" : *loras.embeddings.begin(), "'");
  LayerWriter writer;
  for (const auto& [path, adapter] : loras.modules) {
    auto layer = one_adapter(detail::expert_of(adapter, loras.dropout), base_of(path, adapter.in(), adapter.out()),
                             DefaultExecution{});
    writer.add(path, layer);
  }
  writer.write(file);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
