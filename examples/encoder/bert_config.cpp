// SPDX-License-Identifier: MIT
#include "encoder/bert_config.hpp"

#include "encoder/json_file.hpp"

#include <stdexcept>
#include <string>

namespace encoder {

void BertConfig::check() const {
  for (const mole::Index size : {layers, width, heads, hidden, positions})
    if (size < 1) throw std::invalid_argument("encoder: expected positive sizes, found " + std::to_string(size));
  if (width % heads != 0)
    throw std::invalid_argument("encoder: expected heads that divide the width " + std::to_string(width) + ", found " +
                                std::to_string(heads));
}

BertConfig BertConfig::read(const std::filesystem::path& folder) {
  const JsonFile file(folder / "config.json");
  file.expect("model_type", "bert");
  file.expect("hidden_act", "gelu");
  file.expect("position_embedding_type", "absolute");
  BertConfig config{.layers = file.number("num_hidden_layers"),
                    .width = file.number("hidden_size"),
                    .heads = file.number("num_attention_heads"),
                    .hidden = file.number("intermediate_size"),
                    .positions = file.number("max_position_embeddings"),
                    .norm_eps = file.real("layer_norm_eps")};
  config.check();
  return config;
}

}  // namespace encoder
