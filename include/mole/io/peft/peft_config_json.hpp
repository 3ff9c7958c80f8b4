// SPDX-License-Identifier: MIT
// json_of(): a configuration of an adapter as peft's adapter_config.json.
#pragma once

#include "mole/io/limited_json.hpp"
#include "mole/io/peft/peft_config.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {

/// A whole number as such.
inline LimitedJson::Tree peft_number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return std::int64_t(value);
  return value;
}
inline LimitedJson::Tree text_or_null(const std::string& text) {
  return text.empty() ? LimitedJson::Tree(nullptr) : LimitedJson::Tree(text);
}
inline LimitedJson::Tree peft_patterns(const std::vector<PeftPattern>& patterns) {
  auto object = LimitedJson::Tree::object();
  for (const PeftPattern& each : patterns) object[each.pattern.expression()] = peft_number(each.value);
  return object;
}

/// What read_sizes() reads.
inline void write_sizes(const PeftConfig& config, LimitedJson::Tree& tree) {
  const auto write = [&](const char* rank, const char* alpha, const char* dropout) {
    tree[rank] = config.rank;
    if (alpha) tree[alpha] = peft_number(config.alpha);
    if (dropout) tree[dropout] = peft_number(config.dropout);
  };
  switch (config.kind) {
    case PeftKind::lora:
    case PeftKind::hydralora:
    case PeftKind::flylora:
    case PeftKind::smora:
      return write("r", "lora_alpha", "lora_dropout");
    case PeftKind::adalora:
      tree["total_step"] = 1;  // peft asks for a schedule, which ends with training
      return write("init_r", "lora_alpha", "lora_dropout");
    case PeftKind::vera:
      tree["save_projection"] = true;
      return write("r", nullptr, "vera_dropout");
    case PeftKind::randlora:
      tree["save_projection"] = true;
      return write("r", "randlora_alpha", "randlora_dropout");
    case PeftKind::loha:
    case PeftKind::lokr:
      return write("r", "alpha", nullptr);
  }
}

/// What read_switches() reads.
inline void write_switches(const PeftConfig& config, LimitedJson::Tree& tree) {
  if (config.kind == PeftKind::lora) {
    tree["use_rslora"] = config.rank_stabilized;
    tree["use_dora"] = config.decomposed;
    tree["lora_bias"] = config.lora_bias;
    if (!config.target_parameters.empty()) tree["target_parameters"] = config.target_parameters;
    if (!config.init.empty()) tree["init_lora_weights"] = config.init;
  }
  if (config.kind == PeftKind::hydralora) tree["lora_nums"] = config.experts;
  if (config.kind == PeftKind::flylora) {
    tree["bias_u"] = 0.01;  // of further training
    tree["top_k"] = config.k;
    tree["use_rslora"] = config.rank_stabilized;
  }
  if (config.kind == PeftKind::smora) {
    tree["activate_r"] = config.k;
    tree["rank_partition"] = config.rank_partition;
  }
  if (config.kind == PeftKind::lokr) {
    tree["decompose_both"] = config.decompose_both;
    tree["decompose_factor"] = config.decompose_factor == 0 ? -1 : config.decompose_factor;
  }
  for (const auto& [path, kept] : config.kept_ranks) {  // which of them: the tensors have no others, so the first ones
    auto& list = tree["rank_pattern"][path + ".lora_E"] = LimitedJson::Tree::array();
    for (Index i = 0; i < config.rank; ++i) list.push_back(i < kept);
  }
  if (config.kind == PeftKind::lora || config.kind == PeftKind::loha || config.kind == PeftKind::lokr ||
      config.kind == PeftKind::flylora) {
    tree["rank_pattern"] = peft_patterns(config.rank_pattern);
    tree["alpha_pattern"] = peft_patterns(config.alpha_pattern);
  }
}

}  // namespace detail

/// The text of an adapter_config.json that peft loads, and PeftConfig::parse() reads back.
inline std::string json_of(const PeftConfig& config) {
  detail::LimitedJson::Tree tree;
  tree["peft_type"] = detail::peft_kinds[std::size_t(config.kind)].type;
  tree["task_type"] = detail::text_or_null(config.task);
  tree["base_model_name_or_path"] = detail::text_or_null(config.base);
  tree["inference_mode"] = true;
  detail::write_sizes(config, tree);
  detail::write_switches(config, tree);
  if (config.kind != PeftKind::loha && config.kind != PeftKind::lokr) {
    tree["fan_in_fan_out"] = config.fan_in_fan_out;
    tree["bias"] = config.bias;
  }
  if (config.target_is_expression && config.target_modules.size() == 1)
    tree["target_modules"] = config.target_modules.front();
  else
    tree["target_modules"] = config.target_modules;
  if (config.exclude_is_expression && config.exclude_modules.size() == 1)
    tree["exclude_modules"] = config.exclude_modules.front();
  else if (!config.exclude_modules.empty())
    tree["exclude_modules"] = config.exclude_modules;
  if (!config.modules_to_save.empty()) tree["modules_to_save"] = config.modules_to_save;
  return tree.dump(2) + "\n";
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
