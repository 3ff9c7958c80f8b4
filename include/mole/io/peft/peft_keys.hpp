// SPDX-License-Identifier: MIT
// PeftKey: how peft names the tensors of an adapter, for every kind that is served.
#pragma once

#include "mole/io/peft/peft_config.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A tensor of a module: base_model.model.<path of the module>.<suffix>
struct PeftKey {
  PeftKind kind;
  std::string_view suffix;
  int dimensions;       ///< 0: of a kind of layer that is not served, such as a convolution
  bool shared = false;  ///< may be there once for all modules, as base_model.<suffix>
};

/// The names of all tensors. The adapter's own name is not in them: peft takes it out when it saves.
/// Source: huggingface/peft 0.21.2, tuners/*/layer.py and utils/save_and_load.py.
inline constexpr std::array<PeftKey, 30> peft_keys{{
    {PeftKind::lora, "lora_A.weight", 2},          // [r x I]; stacked experts [E r x I], expert after expert
    {PeftKind::lora, "lora_B.weight", 2},          // [O x r]; stacked experts [O x r E], rank after rank
    {PeftKind::lora, "lora_B.bias", 1},            // [O]
    {PeftKind::lora, "lora_magnitude_vector", 1},  // [O]: DoRA
    {PeftKind::lora, "lora_embedding_A", 2},       // [r x words]
    {PeftKind::lora, "lora_embedding_B", 2},       // [width x r]
    {PeftKind::adalora, "lora_A", 2},              // [r x I]
    {PeftKind::adalora, "lora_B", 2},              // [O x r]
    {PeftKind::adalora, "lora_E", 2},              // [r x 1]
    {PeftKind::vera, "vera_lambda_b", 1},          // [O]
    {PeftKind::vera, "vera_lambda_d", 1},          // [r]
    {PeftKind::vera, "vera_A", 2, true},           // [r x largest I]
    {PeftKind::vera, "vera_B", 2, true},           // [largest O x r]
    {PeftKind::randlora, "randlora_lambda", 2},    // [r x n]
    {PeftKind::randlora, "randlora_gamma", 2},     // [n x min(I, O)]
    {PeftKind::randlora, "randlora_A", 3, true},   // [r x 1 x largest min(I, O)]
    {PeftKind::randlora, "randlora_B", 3, true},   // [largest max(I, O) x n x r]
    {PeftKind::loha, "hada_w1_a", 2},              // [O x r]
    {PeftKind::loha, "hada_w1_b", 2},              // [r x I]
    {PeftKind::loha, "hada_w2_a", 2},              // [O x r]
    {PeftKind::loha, "hada_w2_b", 2},              // [r x I]
    {PeftKind::loha, "hada_t1", 0},
    {PeftKind::loha, "hada_t2", 0},
    {PeftKind::lokr, "lokr_w1", 2},  // [l x m], or w1_a [l x r] and w1_b [r x m]
    {PeftKind::lokr, "lokr_w1_a", 2},
    {PeftKind::lokr, "lokr_w1_b", 2},
    {PeftKind::lokr, "lokr_w2", 2},  // [k x n], or w2_a [k x r] and w2_b [r x n]
    {PeftKind::lokr, "lokr_w2_a", 2},
    {PeftKind::lokr, "lokr_w2_b", 2},
    {PeftKind::lokr, "lokr_t2", 0},
}};

/// Where a tensor of a file belongs.
struct PeftPlace {
  std::string_view path;  ///< of the module; empty: shared by all
  const PeftKey* key;     ///< null: no tensor of the adapter, but one of the host, at this path
};

/// The place of the tensor `name` in a file of an adapter of `kind`.
inline PeftPlace peft_place(PeftKind kind, std::string_view name) {
  constexpr std::string_view outer = "base_model.", inner = "model.";
  std::string_view path = name;
  const bool is_outer = path.starts_with(outer);
  if (is_outer) path.remove_prefix(outer.size());
  const bool is_inner = !is_outer || path.starts_with(inner);
  if (is_outer && is_inner) path.remove_prefix(inner.size());
  for (const PeftKey& key : peft_keys) {
    if (key.kind != kind || !path.ends_with(key.suffix)) continue;
    const std::string_view before = path.substr(0, path.size() - key.suffix.size());
    if (before.ends_with('.')) return {before.substr(0, before.size() - 1), &key};
    if (before.empty() && key.shared) return {{}, &key};
  }
  return {path, nullptr};
}

namespace detail {
/// A path of the host, without the steps that peft puts in between where it wraps a module.
inline std::string without_base_layers(std::string_view path) {
  std::string own;
  while (!path.empty()) {
    const std::string_view step = path.substr(0, path.find('.'));
    if (step != "base_layer") own += (own.empty() ? "" : ".") + std::string(step);
    path.remove_prefix(std::min(path.size(), step.size() + 1));
  }
  return own;
}

/// Of each list, a module has one tensor at least.
inline std::vector<std::vector<std::string_view>> peft_needs(const PeftConfig& config) {
  switch (config.kind) {
    case PeftKind::lora:
      return {{"lora_A.weight", "lora_embedding_A"},
              {"lora_A.weight", "lora_embedding_B"},
              {"lora_B.weight", "lora_embedding_A"},
              {"lora_B.weight", "lora_embedding_B"}};
    case PeftKind::adalora:
      return {{"lora_A"}, {"lora_B"}, {"lora_E"}};
    case PeftKind::vera:
      return {{"vera_lambda_b"}, {"vera_lambda_d"}, {"vera_A"}, {"vera_B"}};
    case PeftKind::randlora:
      return {{"randlora_lambda"}, {"randlora_gamma"}, {"randlora_A"}, {"randlora_B"}};
    case PeftKind::loha:
      return {{"hada_w1_a"}, {"hada_w1_b"}, {"hada_w2_a"}, {"hada_w2_b"}};
    case PeftKind::lokr:
      break;
  }
  return {{"lokr_w1", "lokr_w1_a"}, {"lokr_w1", "lokr_w1_b"}, {"lokr_w2", "lokr_w2_a"}, {"lokr_w2", "lokr_w2_b"}};
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
