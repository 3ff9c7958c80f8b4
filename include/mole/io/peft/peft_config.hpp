// SPDX-License-Identifier: MIT
// PeftConfig: what an adapter_config.json says about the arithmetic of an adapter.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/io/peft/peft_fields.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The peft_type of an adapter that this library computes.
enum class PeftKind { lora, adalora, vera, randlora, loha, lokr };

/// As the file spells it: "LORA".
std::string_view name_of(PeftKind kind);

/// The fields of adapter_config.json that arithmetic or the choice of tensors depends on, with peft's defaults.
///
/// A module's rank is that of the first key of rank_pattern, in the order of the file, that is the module's whole path
/// or follows one of its dots (PathPattern::ends), else `rank`; its alpha likewise.
/// Source: huggingface/peft 0.21.2, tuners/{lora,adalora,vera,randlora,loha,lokr}/config.py.
struct PeftConfig {
  PeftKind kind = PeftKind::lora;
  Index rank = 8;                ///< r, or AdaLoRA's init_r
  double alpha = 8;              ///< lora_alpha, randlora_alpha or alpha; VeRA has none
  double dropout = 0;            ///< on the adapter's input, in training; LoHa and LoKr have none
  bool rank_stabilized = false;  ///< use_rslora: alpha over the root of the rank
  bool decomposed = false;       ///< use_dora
  bool lora_bias = false;        ///< B has a bias
  bool fan_in_fan_out = false;   ///< the base's weight is stored [I x O]; A and B are not
  bool decompose_both = false;   ///< LoKr: W1, too, may be a product
  Index decompose_factor = 0;    ///< LoKr; 0, in the file -1: near to square roots
  std::vector<PeftPattern> rank_pattern = {}, alpha_pattern = {};
  std::map<std::string, Index, std::less<>> kept_ranks =
      {};  ///< AdaLoRA's rank_pattern: of modules that lost some of `rank`
  std::vector<std::string> target_modules =
      {};  ///< a single one that is a regular expression: see target_is_expression
  bool target_is_expression = false;
  std::vector<std::string> target_parameters = {}, modules_to_save = {};
  std::string bias = "none";  ///< which biases of the base are saved with the adapter: none, all, or lora_only
  std::string init = {};      ///< init_lora_weights if it is a text, such as pissa
  std::string base = {};      ///< base_model_name_or_path
  std::string task = {};      ///< task_type

  /// Throws Error(file), naming `source` and the field, for what is no configuration of an adapter, a field of a wrong
  /// type, and every switch that changes what an adapter computes and is not served. Other fields are ignored.
  static PeftConfig parse(std::string_view json, const std::string& source);
  /// A configuration that peft loads, and parse() reads back.
  std::string json() const;

  Index rank_of(std::string_view path) const {
    if (const auto kept = kept_ranks.find(path); kept != kept_ranks.end()) return kept->second;
    return Index(first_match(rank_pattern, path, double(rank)));
  }
  double alpha_of(std::string_view path) const { return first_match(alpha_pattern, path, alpha); }
  /// What multiplies the update of the module, beside what its tensors hold.
  double scale_of(std::string_view path) const;
  /// Does the adapter belong to a base whose weights were changed when it was made? (PiSSA, OLoRA, CorDA, LoftQ,
  /// LoRA-GA)
  bool changes_base() const;

 private:
  static double first_match(const std::vector<PeftPattern>& patterns, std::string_view path, double otherwise) {
    for (const PeftPattern& known : patterns)
      if (known.pattern.ends(path)) return known.value;
    return otherwise;
  }
};

namespace detail {

inline constexpr std::array<std::pair<PeftKind, std::string_view>, 6> peft_kinds{{{PeftKind::lora, "LORA"},
                                                                                  {PeftKind::adalora, "ADALORA"},
                                                                                  {PeftKind::vera, "VERA"},
                                                                                  {PeftKind::randlora, "RANDLORA"},
                                                                                  {PeftKind::loha, "LOHA"},
                                                                                  {PeftKind::lokr, "LOKR"}}};

/// Fields that change what an adapter computes if they are set, and are not served.
inline constexpr std::array<std::string_view, 8> unserved_peft_fields{"use_qalora",
                                                                      "use_bdlora",
                                                                      "kasa_config",
                                                                      "monteclora_config",
                                                                      "alora_invocation_tokens",
                                                                      "layer_replication",
                                                                      "arrow_config",
                                                                      "trainable_token_indices"};

/// How init_lora_weights begins where it changes the weights of the base.
inline constexpr std::array<std::string_view, 5> base_changing_inits{"pissa", "olora", "corda", "loftq", "lora_ga"};

inline std::string known_peft_kinds() {
  std::string names;
  for (const auto& [kind, name] : peft_kinds) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

}  // namespace detail

inline std::string_view name_of(PeftKind kind) {
  return detail::peft_kinds[std::size_t(kind)].second;
}

inline PeftConfig PeftConfig::parse(std::string_view json, const std::string& source) {
  const detail::LimitedJson::Tree tree = detail::LimitedJson::object(json, source);
  const detail::PeftFields fields(tree, source);
  const auto* type = fields.find("peft_type");
  if (!type) throw file_error(source, "a 'peft_type', as in peft's adapter_config.json", "none");
  PeftConfig config;
  const std::string type_name = fields.text("peft_type", *type);
  const auto kind = std::ranges::find(detail::peft_kinds, type_name, [](const auto& known) { return known.second; });
  if (kind == detail::peft_kinds.end())
    throw file_error(source, "a peft_type of " + detail::known_peft_kinds(), "'" + type_name + "'");
  config.kind = kind->first;
  for (const std::string_view name : detail::unserved_peft_fields)
    if (fields.is_set(name))
      throw file_error(source, "an adapter without '" + std::string(name) + "', which is not served",
                       fields.find(name)->dump().substr(0, 60));

  const bool is_lora = config.kind == PeftKind::lora, is_adalora = config.kind == PeftKind::adalora;
  if (config.kind == PeftKind::vera) config.rank = 256;
  if (config.kind == PeftKind::randlora) config.rank = 32, config.alpha = 640;
  if (is_adalora) config.rank = 12;
  fields.read(is_adalora ? "init_r" : "r", config.rank);
  if (config.kind != PeftKind::vera)
    fields.read(is_lora || is_adalora               ? "lora_alpha"
                : config.kind == PeftKind::randlora ? "randlora_alpha"
                                                    : "alpha",
                config.alpha);
  if (is_lora || is_adalora) fields.read("lora_dropout", config.dropout);
  if (config.kind == PeftKind::vera) fields.read("vera_dropout", config.dropout);
  if (config.kind == PeftKind::randlora) fields.read("randlora_dropout", config.dropout);
  if (!(config.dropout >= 0 && config.dropout < 1))
    throw file_error(source, "a dropout of at least 0 and below 1", std::to_string(config.dropout));
  if (is_lora) {
    fields.read("use_rslora", config.rank_stabilized);
    fields.read("use_dora", config.decomposed);
    fields.read("lora_bias", config.lora_bias);
    fields.read("target_parameters", config.target_parameters);
    if (config.decomposed && config.lora_bias)
      throw file_error(source, "use_dora or lora_bias, not both, as in peft", "both");
  }
  if (const auto* init = fields.find("init_lora_weights"); init && init->is_string())
    config.init = fields.text("init_lora_weights", *init);
  if (config.kind == PeftKind::lokr) {
    fields.read("decompose_both", config.decompose_both);
    double factor = -1;
    fields.read("decompose_factor", factor);
    if (!(factor == -1 || (factor >= 1 && factor <= 1 << 30)))
      throw file_error(source, "a decompose_factor of -1 or at least 1", std::to_string(factor));
    config.decompose_factor = factor == -1 ? 0 : Index(factor);
  }
  fields.read("fan_in_fan_out", config.fan_in_fan_out);
  if (is_adalora) config.kept_ranks = fields.counts("rank_pattern", ".lora_E");
  if (is_lora || config.kind == PeftKind::loha || config.kind == PeftKind::lokr) {
    fields.read("rank_pattern", config.rank_pattern, true);
    fields.read("alpha_pattern", config.alpha_pattern, false);
  }
  fields.read("target_modules", config.target_modules);
  config.target_is_expression = fields.find("target_modules") && fields.find("target_modules")->is_string();
  fields.read("modules_to_save", config.modules_to_save);
  fields.read("bias", config.bias);
  fields.read("base_model_name_or_path", config.base);
  fields.read("task_type", config.task);
  return config;
}

inline double PeftConfig::scale_of(std::string_view path) const {
  switch (kind) {
    case PeftKind::vera:
      return 1;
    case PeftKind::adalora:  // of the initial rank, whatever is left of it
      return (alpha > 0 ? alpha : double(rank)) / (double(rank) + 1e-5);
    case PeftKind::randlora:
      return alpha / double(rank);
    default:
      return mole::scale_of(alpha_of(path), rank_of(path),
                            rank_stabilized ? Scaling::alpha_over_sqrt_rank : Scaling::alpha_over_rank);
  }
}

inline bool PeftConfig::changes_base() const {
  std::string lower = init;
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  return std::ranges::any_of(detail::base_changing_inits,
                             [&](std::string_view begins) { return lower.starts_with(begins); });
}

inline std::string PeftConfig::json() const {
  detail::LimitedJson::Tree tree;
  const auto number = [](double value) -> detail::LimitedJson::Tree {  // whole numbers as such
    if (value == std::floor(value) && std::abs(value) < 1e15) return std::int64_t(value);
    return value;
  };
  const auto text_or_null = [](const std::string& text) -> detail::LimitedJson::Tree {
    return text.empty() ? detail::LimitedJson::Tree(nullptr) : detail::LimitedJson::Tree(text);
  };
  const auto patterns = [&](const std::vector<PeftPattern>& of) {
    auto object = detail::LimitedJson::Tree::object();
    for (const PeftPattern& each : of) object[each.pattern.expression()] = number(each.value);
    return object;
  };
  tree["peft_type"] = name_of(kind);
  tree["task_type"] = text_or_null(task);
  tree["base_model_name_or_path"] = text_or_null(base);
  tree["inference_mode"] = true;
  tree[kind == PeftKind::adalora ? "init_r" : "r"] = rank;
  if (kind == PeftKind::lora || kind == PeftKind::adalora) tree["lora_alpha"] = number(alpha);
  if (kind == PeftKind::loha || kind == PeftKind::lokr) tree["alpha"] = number(alpha);
  if (kind == PeftKind::randlora) tree["randlora_alpha"] = number(alpha);
  for (const auto& [path, kept] : kept_ranks) {  // which of them: the tensors have no others, so the first ones
    auto& list = tree["rank_pattern"][path + ".lora_E"] = detail::LimitedJson::Tree::array();
    for (Index i = 0; i < rank; ++i) list.push_back(i < kept);
  }
  if (kind == PeftKind::adalora) tree["total_step"] = 1;  // peft asks for a schedule, which ends with training
  if (kind == PeftKind::lora || kind == PeftKind::adalora) tree["lora_dropout"] = number(dropout);
  if (kind == PeftKind::vera) tree["vera_dropout"] = number(dropout), tree["save_projection"] = true;
  if (kind == PeftKind::randlora) tree["randlora_dropout"] = number(dropout), tree["save_projection"] = true;
  if (kind == PeftKind::lora) {
    tree["use_rslora"] = rank_stabilized;
    tree["use_dora"] = decomposed;
    tree["lora_bias"] = lora_bias;
    if (!target_parameters.empty()) tree["target_parameters"] = target_parameters;
    if (!init.empty()) tree["init_lora_weights"] = init;
  }
  if (kind == PeftKind::lokr) {
    tree["decompose_both"] = decompose_both;
    tree["decompose_factor"] = decompose_factor == 0 ? -1 : decompose_factor;
  }
  if (kind == PeftKind::lora || kind == PeftKind::loha || kind == PeftKind::lokr) {
    tree["rank_pattern"] = patterns(rank_pattern);
    tree["alpha_pattern"] = patterns(alpha_pattern);
  }
  if (kind != PeftKind::loha && kind != PeftKind::lokr) {
    tree["fan_in_fan_out"] = fan_in_fan_out;
    tree["bias"] = bias;
  }
  if (target_is_expression && target_modules.size() == 1)
    tree["target_modules"] = target_modules.front();
  else
    tree["target_modules"] = target_modules;
  if (!modules_to_save.empty()) tree["modules_to_save"] = modules_to_save;
  return tree.dump(2) + "\n";
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
