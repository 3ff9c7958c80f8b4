// SPDX-License-Identifier: MIT
// PlainLoras: what several formats can say: one LoRA for a module of a host.
#pragma once

#include "mole/surgery/weighted_adapter.hpp"

#include <functional>
#include <map>
#include <set>
#include <string>

#include "mole/core/macros_off.hpp"

namespace mole {

/// loras_of() makes it of an adapter of peft, of llama.cpp or of a layer file; write_peft(), gguf_lora() and
/// write_lora_layers() write it.
struct PlainLoras {
  std::map<std::string, Adapter<float>, std::less<>> modules =
      {};                                              ///< by the host's path: "model.layers.0.mlp.up_proj"
  std::set<std::string, std::less<>> embeddings = {};  ///< those modules whose weight is a table
  std::string base = {};                               ///< where the model is, if the file says
  std::string task = {};                               ///< peft's task_type
  double dropout = 0;                                  ///< in further training
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
