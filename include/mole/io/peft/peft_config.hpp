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

/// The peft_type of an adapter that this library computes. The last three are of forks of peft, which their authors
/// released: experts with a router, of which two call themselves LORA.
enum class PeftKind { lora, adalora, vera, randlora, loha, lokr, hydralora, flylora, smora };

/// As the file spells it, "LORA", or the name of the method.
std::string_view name_of(PeftKind kind);

/// Has it experts and a router? (PeftMixtures)
constexpr bool is_mixture(PeftKind kind) {
  return kind == PeftKind::hydralora || kind == PeftKind::flylora || kind == PeftKind::smora;
}

/// The fields of adapter_config.json that arithmetic or the choice of tensors depends on, with peft's defaults.
///
/// A module's rank is that of the first key of rank_pattern, in the order of the file, that is the module's whole path
/// or follows one of its dots (PathPattern::ends), else `rank`; its alpha likewise.
/// A LORA with `lora_nums` is a HydraLoRA, one with `bias_u` a FlyLoRA.
/// Source: huggingface/peft 0.21.2, tuners/{lora,adalora,vera,randlora,loha,lokr}/config.py; Clin0212/HydraLoRA,
/// peft/tuners/lora.py; gfyddha/FlyLoRA, peft/src/peft/tuners/lora/config.py; StyxXuan/smora, tuners/srmole/config.py.
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
  Index experts = 0;             ///< HydraLoRA's lora_nums
  Index k = 8;                   ///< ranks of a token: FlyLoRA's top_k, SMoRA's activate_r
  Index rank_partition = 1;      ///< SMoRA: neighboring ranks that share a row of the router
  std::vector<PeftPattern> rank_pattern = {}, alpha_pattern = {};
  std::map<std::string, Index, std::less<>> kept_ranks = {};  ///< AdaLoRA: of modules that lost some of `rank`
  std::vector<std::string> target_modules = {};
  bool target_is_expression = false;              ///< there is one target, a regular expression
  std::vector<std::string> exclude_modules = {};  ///< what of target_modules gets no adapter
  bool exclude_is_expression = false;
  std::vector<std::string> target_parameters = {}, modules_to_save = {};
  std::string bias = "none";  ///< which biases of the base are saved with the adapter: none, all, or lora_only
  std::string init = {};      ///< init_lora_weights if it is a text, such as pissa
  std::string base = {};      ///< base_model_name_or_path
  std::string task = {};      ///< task_type

  /// Throws Error(file), naming `source` and the field, for what is no configuration of an adapter, a field of a wrong
  /// type, and every switch that changes what an adapter computes and is not served. Other fields are ignored.
  static PeftConfig parse(std::string_view json, const std::string& source);

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

struct PeftKindRow {
  PeftKind kind;
  std::string_view type, name;
};
inline constexpr std::array<PeftKindRow, 9> peft_kinds{{{PeftKind::lora, "LORA", "LORA"},
                                                        {PeftKind::adalora, "ADALORA", "ADALORA"},
                                                        {PeftKind::vera, "VERA", "VERA"},
                                                        {PeftKind::randlora, "RANDLORA", "RANDLORA"},
                                                        {PeftKind::loha, "LOHA", "LOHA"},
                                                        {PeftKind::lokr, "LOKR", "LOKR"},
                                                        {PeftKind::hydralora, "LORA", "HydraLoRA"},
                                                        {PeftKind::flylora, "LORA", "FlyLoRA"},
                                                        {PeftKind::smora, "SRMOLE", "SMoRA"}}};

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
  for (const auto& [kind, type, name] : peft_kinds)
    if (type != "LORA" || kind == PeftKind::lora) names += (names.empty() ? "" : ", ") + std::string(type);
  return names;
}

}  // namespace detail

inline std::string_view name_of(PeftKind kind) {
  return detail::peft_kinds[std::size_t(kind)].name;
}

namespace detail {

inline PeftKind peft_kind(const PeftFields& fields, const std::string& source) {
  const auto* type = fields.find("peft_type");
  if (!type) throw file_error(source, "a 'peft_type', as in peft's adapter_config.json", "none");
  const std::string name = fields.text("peft_type", *type);
  const auto row = std::ranges::find(peft_kinds, name, &PeftKindRow::type);
  if (row == peft_kinds.end()) throw file_error(source, "a peft_type of " + known_peft_kinds(), "'" + name + "'");
  if (row->kind == PeftKind::lora && fields.find("lora_nums")) return PeftKind::hydralora;
  if (row->kind == PeftKind::lora && fields.find("bias_u")) return PeftKind::flylora;
  return row->kind;
}

/// Rank, alpha and dropout, whose names and defaults depend on the kind.
inline void read_sizes(const PeftFields& fields, PeftConfig& config) {
  const auto read = [&](const char* rank, const char* alpha, const char* dropout) {
    fields.read(rank, config.rank);
    if (alpha) fields.read(alpha, config.alpha);
    if (dropout) fields.read(dropout, config.dropout);
  };
  switch (config.kind) {
    case PeftKind::lora:
    case PeftKind::hydralora:
    case PeftKind::flylora:
    case PeftKind::smora:
      return read("r", "lora_alpha", "lora_dropout");
    case PeftKind::adalora:
      config.rank = 12;
      return read("init_r", "lora_alpha", "lora_dropout");
    case PeftKind::vera:
      config.rank = 256;
      return read("r", nullptr, "vera_dropout");
    case PeftKind::randlora:
      config.rank = 32, config.alpha = 640;
      return read("r", "randlora_alpha", "randlora_dropout");
    case PeftKind::loha:
    case PeftKind::lokr:
      return read("r", "alpha", nullptr);
  }
}

/// What only some kinds have.
inline void read_switches(const PeftFields& fields, PeftConfig& config) {
  if (config.kind == PeftKind::lora) {
    fields.read("use_rslora", config.rank_stabilized);
    fields.read("use_dora", config.decomposed);
    fields.read("lora_bias", config.lora_bias);
    fields.read("target_parameters", config.target_parameters);
  }
  if (is_mixture(config.kind)) {
    fields.read("lora_nums", config.experts);
    fields.read(config.kind == PeftKind::smora ? "activate_r" : "top_k", config.k);
    fields.read("rank_partition", config.rank_partition);
    if (config.kind == PeftKind::flylora) fields.read("use_rslora", config.rank_stabilized);
  }
  if (config.kind == PeftKind::lokr) {
    fields.read("decompose_both", config.decompose_both);
    double factor = -1;
    fields.read("decompose_factor", factor);
    config.decompose_factor = factor == -1 ? 0 : factor >= 1 && factor <= 1 << 30 ? Index(factor) : -1;
  }
  if (config.kind == PeftKind::adalora) {
    config.kept_ranks = fields.counts("rank_pattern", ".lora_E", config.rank);
  } else if (config.kind == PeftKind::lora || config.kind == PeftKind::loha || config.kind == PeftKind::lokr ||
             config.kind == PeftKind::flylora) {
    fields.read("rank_pattern", config.rank_pattern, true);
    fields.read("alpha_pattern", config.alpha_pattern, false);
  }
}

}  // namespace detail

inline PeftConfig PeftConfig::parse(std::string_view json, const std::string& source) {
  const detail::LimitedJson::Tree tree = detail::LimitedJson::object(json, source);
  const detail::PeftFields fields(tree, source);
  PeftConfig config;
  config.kind = detail::peft_kind(fields, source);
  for (const std::string_view name : detail::unserved_peft_fields)
    if (fields.is_set(name))
      throw file_error(source, "an adapter without '" + std::string(name) + "', which is not served",
                       fields.find(name)->dump().substr(0, 60));
  for (const std::string_view name : {"use_dora", "lora_bias", "target_parameters"})
    if (is_mixture(config.kind) && fields.is_set(name))
      throw file_error(source, std::string(name_of(config.kind)) + " without '" + std::string(name) + "'", "it");
  detail::read_sizes(fields, config);
  detail::read_switches(fields, config);
  if (!(config.dropout >= 0 && config.dropout < 1))
    throw file_error(source, "a dropout of at least 0 and below 1", std::to_string(config.dropout));
  if (config.decomposed && config.lora_bias)
    throw file_error(source, "use_dora or lora_bias, not both, as in peft", "both");
  if (config.decompose_factor < 0)
    throw file_error(source, "a decompose_factor of -1 or at least 1", fields.find("decompose_factor")->dump());
  if (const auto* init = fields.find("init_lora_weights"); init && init->is_string())
    config.init = fields.text("init_lora_weights", *init);
  fields.read("fan_in_fan_out", config.fan_in_fan_out);
  fields.read("target_modules", config.target_modules);
  config.target_is_expression = fields.find("target_modules") && fields.find("target_modules")->is_string();
  fields.read("exclude_modules", config.exclude_modules);
  config.exclude_is_expression = fields.find("exclude_modules") && fields.find("exclude_modules")->is_string();
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
    case PeftKind::smora:
      return alpha / double(k);
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

}  // namespace mole

#include "mole/core/macros_on.hpp"
