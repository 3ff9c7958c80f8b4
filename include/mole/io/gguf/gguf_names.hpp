// SPDX-License-Identifier: MIT
// gguf_name(), path_of_gguf(): the same weight in the names of llama.cpp and of transformers; gguf_reorders_heads().
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {

/// Modules of a layer: "model.layers.<n>.<first>" is "blk.<n>.<second>.weight".
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 7> gguf_layer_names{{
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};
/// Modules beside the layers.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 2> gguf_model_names{{
    {"model.embed_tokens", "token_embd"},
    {"lm_head", "output"},
}};

/// "<before><n>.<rest>" as {"<n>", "<rest>"}, for a number n without leading zeros.
inline std::optional<std::pair<std::string_view, std::string_view>> numbered(std::string_view name,
                                                                             std::string_view before) {
  if (!name.starts_with(before)) return {};
  name.remove_prefix(before.size());
  const std::string_view digits = name.substr(0, name.find('.'));
  unsigned number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.size() == name.size() || digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
    return {};
  if (digits.size() > 1 && digits[0] == '0') return {};
  return std::pair(digits, name.substr(digits.size() + 1));
}

}  // namespace detail

/// "blk.0.attn_q.weight" for "model.layers.0.self_attn.q_proj", and so on: the weights of models of the family of Llama
/// (Mistral, Qwen2, ...), whose layers are of that form. None for any other module.
/// Source: gguf-py 0.19.0, tensor_mapping.py.
inline std::optional<std::string> gguf_name(std::string_view path) {
  for (const auto& [own, other] : detail::gguf_model_names)
    if (path == own) return std::string(other) + ".weight";
  if (const auto layer = detail::numbered(path, "model.layers."))
    for (const auto& [own, other] : detail::gguf_layer_names)
      if (layer->second == own) return "blk." + std::string(layer->first) + "." + std::string(other) + ".weight";
  return {};
}

/// The reverse.
inline std::optional<std::string> path_of_gguf(std::string_view tensor) {
  if (!tensor.ends_with(".weight")) return {};
  tensor.remove_suffix(7);
  for (const auto& [own, other] : detail::gguf_model_names)
    if (tensor == other) return std::string(own);
  if (const auto layer = detail::numbered(tensor, "blk."))
    for (const auto& [own, other] : detail::gguf_layer_names)
      if (layer->second == other) return "model.layers." + std::string(layer->first) + "." + std::string(own);
  return {};
}

/// Have files of that general.architecture the rows of q and k of each head in an order of their own (GgufHeads)? None
/// for an architecture that this table does not know. Mistral's and Mixtral's are files of "llama".
/// Source: llama.cpp, conversion/*.py: the models that permute q_proj and k_proj, and those that do not.
inline std::optional<bool> gguf_reorders_heads(std::string_view architecture) {
  constexpr std::string_view reordered[] = {"arcee",      "arctic",        "deci",    "deepseek", "granite",
                                            "granitemoe", "granitehybrid", "llama",   "minicpm",  "mistral3",
                                            "nanbeige",   "olmo",          "smollm3", "xverse"};
  constexpr std::string_view as_they_are[] = {"apertus",  "command-r", "cohere2",   "ernie4_5", "exaone", "exaone4",
                                              "gemma",    "gemma2",    "gemma3",    "llama4",   "olmo2",  "olmoe",
                                              "phi2",     "phi3",      "qwen2",     "qwen2moe", "qwen3",  "qwen3moe",
                                              "seed_oss", "stablelm",  "starcoder2"};
  if (std::ranges::find(reordered, architecture) != std::ranges::end(reordered)) return true;
  if (std::ranges::find(as_they_are, architecture) != std::ranges::end(as_they_are)) return false;
  return {};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
