// SPDX-License-Identifier: MIT
// gguf_name(), path_of_gguf(): the same weight in the names of llama.cpp and of transformers.
#pragma once

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

}  // namespace mole

#include "mole/core/macros_on.hpp"
