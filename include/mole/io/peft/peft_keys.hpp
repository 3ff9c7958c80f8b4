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

/// A tensor of a module: `base_model.model.<path of the module>.<suffix>`
struct PeftKey {
  PeftKind kind;
  std::string_view suffix;
  int dimensions;       ///< 0: of a kind of layer that is not served, such as a convolution
  bool shared = false;  ///< may be there once for all modules, as `base_model.<suffix>`
};

/// The names of all tensors. The adapter's own name is not in them: peft takes it out when it saves. # is a number.
/// Source: huggingface/peft 0.21.2, tuners/*/layer.py and utils/save_and_load.py; Clin0212/HydraLoRA,
/// peft/tuners/lora.py; gfyddha/FlyLoRA, peft/src/peft/tuners/lora/layer.py; StyxXuan/smora, tuners/srmole/layer.py.
inline constexpr std::array<PeftKey, 40> peft_keys{{
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
    {PeftKind::hydralora, "lora_A.weight", 2},      // [r x I], of all experts
    {PeftKind::hydralora, "lora_B#.weight", 2},     // [O x r], one for each
    {PeftKind::hydralora, "lora_route.weight", 2},  // [experts x I]
    {PeftKind::flylora, "lora_A.weight", 2},        // [r x I], mostly zeros
    {PeftKind::flylora, "lora_B.weight", 2},        // [O x r]
    {PeftKind::flylora, "lora_topk_bias", 1},       // [r]
    {PeftKind::smora, "lora_A.weight", 2},          // [r x I]
    {PeftKind::smora, "lora_B.weight", 2},          // [O x r]
    {PeftKind::smora, "lora_router.weight", 2},     // [r / rank_partition x I]
    {PeftKind::smora, "lora_biases", 1},            // [r]
}};

/// Where a tensor of a file belongs.
struct PeftPlace {
  std::string_view path;         ///< of the module; empty: shared by all
  const PeftKey* key;            ///< null: no tensor of the adapter, but one of the host, at this path
  std::string_view suffix = {};  ///< that of the key, with a number in place of #
};

namespace detail {
/// The size of the end of `path` that is `suffix`, where # stands for a number without leading zeros; 0 if it has none.
inline std::size_t end_that_is(std::string_view path, std::string_view suffix) {
  const std::size_t mark = suffix.find('#');
  if (mark == suffix.npos) return path.ends_with(suffix) ? suffix.size() : 0;
  const std::string_view before = suffix.substr(0, mark), after = suffix.substr(mark + 1);
  if (!path.ends_with(after)) return 0;
  const std::string_view rest = path.substr(0, path.size() - after.size());
  const std::size_t last = rest.find_last_not_of("0123456789");
  const std::size_t digits = rest.size() - (last == rest.npos ? 0 : last + 1);
  if (digits == 0 || digits > 9 || (digits > 1 && rest[rest.size() - digits] == '0')) return 0;
  return rest.substr(0, rest.size() - digits).ends_with(before) ? before.size() + digits + after.size() : 0;
}
}  // namespace detail

/// The place of the tensor `name` in a file of an adapter of `kind`.
inline PeftPlace peft_place(PeftKind kind, std::string_view name) {
  constexpr std::string_view outer = "base_model.", inner = "model.";
  std::string_view path = name;
  const bool is_outer = path.starts_with(outer);
  if (is_outer) path.remove_prefix(outer.size());
  const bool is_inner = !is_outer || path.starts_with(inner);
  if (is_outer && is_inner) path.remove_prefix(inner.size());
  for (const PeftKey& key : peft_keys) {
    const std::size_t size = key.kind == kind ? detail::end_that_is(path, key.suffix) : 0;
    if (size == 0) continue;
    const std::string_view before = path.substr(0, path.size() - size), suffix = path.substr(before.size());
    if (before.ends_with('.') && before.size() > 1) return {before.substr(0, before.size() - 1), &key, suffix};
    if (before.empty() && key.shared) return {{}, &key, suffix};
  }
  return {path, nullptr};
}

namespace detail {
/// A path of the host, without the steps that peft puts in between where it wraps a module.
inline std::string without_base_layers(std::string_view path) {
  std::string own;
  for (bool first = true; !path.empty();) {
    const std::string_view step = path.substr(0, path.find('.'));
    if (step != "base_layer") own += (first ? "" : ".") + std::string(step), first = false;
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
    case PeftKind::hydralora:  // and lora_B1 ... up to lora_nums
      return {{"lora_A.weight"}, {"lora_B0.weight"}, {"lora_route.weight"}};
    case PeftKind::flylora:
      return {{"lora_A.weight"}, {"lora_B.weight"}, {"lora_topk_bias"}};
    case PeftKind::smora:
      return {{"lora_A.weight"}, {"lora_B.weight"}, {"lora_router.weight"}, {"lora_biases"}};
    case PeftKind::lokr:
      break;
  }
  return {{"lokr_w1", "lokr_w1_a"}, {"lokr_w1", "lokr_w1_b"}, {"lokr_w2", "lokr_w2_a"}, {"lokr_w2", "lokr_w2_b"}};
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
