// SPDX-License-Identifier: MIT
// MoePeftConfig: the adapter_config.json of a mixture that MoE-PEFT saved.
#pragma once

#include "mole/core/rank/scaling.hpp"
#include "mole/io/peft/peft_fields.hpp"

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The methods of MoE-PEFT that have experts.
enum class MoePeftKind { mixlora, mola, loramoe, dynmole };
/// How MixLoRA chooses experts.
enum class MoePeftRouting { top_k, dynamic, switched };

/// The LoRA of one expert, or of a module without experts.
struct MoePeftLora {
  Index rank = 0;
  double alpha = 0;
  double dropout = 0;
  Scaling scaling = Scaling::alpha_over_rank;

  double scale() const { return scale_of(alpha, rank, scaling); }
};

/// What changes the arithmetic; coefficients of losses, jitter and the router's initialization are not saved.
struct MoePeftConfig {
  MoePeftKind kind = MoePeftKind::mola;
  MoePeftRouting routing = MoePeftRouting::top_k;
  MoePeftLora lora = {};     ///< of modules without experts: MixLoRA's in the attention
  MoePeftLora experts = {};  ///< expert_lora, by default the same
  Index num_experts = 0;
  Index k = 2;
  double p = 0.8;               ///< MixLoRA-dynamic and DynMoLE
  double temperature = 0;       ///< MixLoRA-dynamic: divides probabilities; 0: off
  Index capacity = 32;          ///< MixLoRA-Switch, of each sequence
  std::string activation = {};  ///< MixLoRA; empty: the host's own
  double entropy_threshold = 0.9, entropy_index = 1.1, entropy_shift = 1e-5;  ///< DynMoLE
  bool renyi = false;                                                         ///< DynMoLE: else Tsallis
  std::set<std::string, std::less<>> target_modules = {};                     ///< last names: "q_proj"

  /// The configuration in `json`. Throws Error(file), naming `source`, for broken JSON, fields of wrong types or
  /// ranges, a kind or routing strategy that is not served, use_dora, whose magnitudes the release does not save, and a
  /// bias. Source: TUDB-Labs/MoE-PEFT, moe_peft/adapters/*/config.py; mikecovlee/DynMoLE.
  static MoePeftConfig parse(std::string_view json, const std::string& source);
};

inline std::string_view name_of(MoePeftKind kind) {
  constexpr std::string_view names[] = {"mixlora", "mola", "loramoe", "dynmole"};
  return names[std::size_t(kind)];
}

namespace detail {
inline void read_moe_peft_lora(const PeftFields& fields, const std::string& source, MoePeftLora& lora) {
  fields.read("r", lora.rank);
  fields.read("lora_alpha", lora.alpha);
  fields.read("lora_dropout", lora.dropout);
  if (lora.dropout < 0 || lora.dropout >= 1)
    throw file_error(source, "a 'lora_dropout' from 0 to less than 1", std::to_string(lora.dropout));
  bool rslora = lora.scaling == Scaling::alpha_over_sqrt_rank;
  fields.read("use_rslora", rslora);
  lora.scaling = rslora ? Scaling::alpha_over_sqrt_rank : Scaling::alpha_over_rank;
  if (fields.is_set("use_dora"))
    throw file_error(source, "no 'use_dora', whose magnitudes are not among the tensors that the release saves", "it");
}

inline void read_moe_peft_targets(const PeftFields& fields, MoePeftConfig& config) {
  const auto* targets = fields.find("target_modules");
  if (targets && targets->is_object()) {
    for (const auto& [name, on] : targets->items()) {
      if (!on.is_boolean()) fields.wrong("target_modules", "names with true or false", on);
      if (on.get<bool>()) config.target_modules.insert(name);
    }
    return;
  }
  std::vector<std::string> names;
  fields.read("target_modules", names);
  config.target_modules = {names.begin(), names.end()};
}
}  // namespace detail

inline MoePeftConfig MoePeftConfig::parse(std::string_view json, const std::string& source) {
  const auto tree = detail::LimitedJson::object(json, source);
  const detail::PeftFields fields(tree, source);
  MoePeftConfig config;
  std::string type, strategy, bias = "none", entropy = "tsallis";
  fields.read("peft_type", type);
  if (type == "LORA")
    throw file_error(source, "a mixture's peft_type", "LORA, of one adapter, which read_peft() reads");
  const auto lower = [](std::string text) {
    for (char& c : text) c = c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
    return text;
  };
  bool known = false;
  for (const MoePeftKind kind : {MoePeftKind::mixlora, MoePeftKind::mola, MoePeftKind::loramoe, MoePeftKind::dynmole})
    if (lower(type) == name_of(kind)) config.kind = kind, known = true;
  if (!known) throw file_error(source, "peft_type MIXLORA, MOLA, LORAMOE or DYNMOLE", "'" + type + "'");

  fields.read("routing_strategy", strategy);
  if (config.kind != MoePeftKind::mixlora) {
    if (!strategy.empty() && strategy != name_of(config.kind))
      throw file_error(source, "routing_strategy '" + std::string(name_of(config.kind)) + "'", "'" + strategy + "'");
  } else if (strategy == "mixlora-dynamic") {
    config.routing = MoePeftRouting::dynamic;
  } else if (strategy == "mixlora-switch") {
    config.routing = MoePeftRouting::switched;
  } else if (strategy != "mixlora" && strategy != "mixtral") {
    throw file_error(source, "routing_strategy mixlora, mixlora-dynamic, mixlora-switch or mixtral",
                     "'" + strategy + "'");
  }
  fields.read("bias", bias);
  if (bias != "none") throw file_error(source, "bias 'none'", "'" + bias + "'");

  detail::read_moe_peft_lora(fields, source, config.lora);
  config.experts = config.lora;
  if (const auto* experts = fields.find("expert_lora")) {
    if (!experts->is_object()) fields.wrong("expert_lora", "an object", *experts);
    const std::string inner = source + ", expert_lora";
    detail::read_moe_peft_lora(detail::PeftFields(*experts, inner), inner, config.experts);
  }
  fields.read("num_experts", config.num_experts);
  if (config.lora.rank == 0 || config.num_experts == 0)
    throw file_error(source, "a rank 'r' and 'num_experts'", "none of one of them");
  if (config.kind == MoePeftKind::dynmole) {
    config.p = 0.75;
    fields.read("keep_top_k", config.k);
  } else {
    fields.read("top_k", config.k);
  }
  fields.read("top_p", config.p);
  fields.read("temperature", config.temperature);
  fields.read("expert_capacity", config.capacity);
  fields.read("act_fn", config.activation);
  fields.read("entropy_threshold", config.entropy_threshold);
  fields.read("entropy_index", config.entropy_index);
  fields.read("entropy_eps", config.entropy_shift);
  fields.read("entropy_type", entropy);
  if (entropy != "tsallis" && entropy != "renyi")
    throw file_error(source, "entropy_type tsallis or renyi", "'" + entropy + "'");
  config.renyi = entropy == "renyi";
  detail::read_moe_peft_targets(fields, config);
  return config;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
