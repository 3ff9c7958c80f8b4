// SPDX-License-Identifier: MIT
// Adapters of an encoder in folders, as peft saves and loads them.
#pragma once

#include "encoder/bert_adapter.hpp"

#include <filesystem>
#include <memory>
#include <vector>

namespace encoder {

/// Is each layer a plain LoRA?
bool is_plain_lora(BertAdapter& adapter);

/// Writes such an adapter as `folder`/adapter_config.json and adapter_model.safetensors.
void write_peft_folder(BertAdapter& adapter, const std::filesystem::path& folder);

/// While it lives, `bert` computes with the adapter of `folder`, of any kind that the library reads.
class PeftFolder {
 public:
  /// For batches of up to `max_tokens`. Throws mole::Error for a folder that is no adapter, or is one of another model.
  PeftFolder(const std::filesystem::path& folder, Bert<float>& bert, mole::Index max_tokens);
  ~PeftFolder();
  PeftFolder(const PeftFolder&) = delete;

 private:
  Bert<float>& bert_;
  std::vector<std::unique_ptr<mole::AnyLinear<float>>> layers_;
};

}  // namespace encoder
