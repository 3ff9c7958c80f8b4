// SPDX-License-Identifier: MIT
// json_of(): the adapter_config.json of a mixture, as MoE-PEFT writes it.
#pragma once

#include "mole/io/moe_peft/moe_peft_config.hpp"
#include "mole/io/peft/peft_config_json.hpp"

#include <string>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
inline void write_moe_peft_lora(const MoePeftLora& lora, LimitedJson::Tree& tree) {
  tree["bias"] = "none";
  tree["r"] = lora.rank;
  tree["lora_alpha"] = peft_number(lora.alpha);
  tree["lora_dropout"] = lora.dropout;
}
}  // namespace detail

/// What MoePeftConfig::parse() reads back as it is. The release asks for a whole lora_alpha.
inline std::string json_of(const MoePeftConfig& config) {
  const auto is_rank_stabilized = [](const MoePeftLora& lora) { return lora.scaling == Scaling::alpha_over_sqrt_rank; };
  detail::LimitedJson::Tree tree;
  if (is_rank_stabilized(config.lora)) tree["use_rslora"] = true;
  std::string type(name_of(config.kind));
  for (char& c : type) c = char(c - 'a' + 'A');
  tree["peft_type"] = type;
  detail::write_moe_peft_lora(config.lora, tree);
  tree["target_modules"] = std::vector<std::string>(config.target_modules.begin(), config.target_modules.end());
  const MoePeftLora &lora = config.lora, &experts = config.experts;
  if (experts.rank != lora.rank || experts.alpha != lora.alpha || experts.dropout != lora.dropout ||
      experts.scaling != lora.scaling) {
    tree["expert_lora"]["use_rslora"] = is_rank_stabilized(experts);
    detail::write_moe_peft_lora(experts, tree["expert_lora"]);
  }
  constexpr const char* routings[] = {"mixlora", "mixlora-dynamic", "mixlora-switch"};
  const bool mixlora = config.kind == MoePeftKind::mixlora;
  tree["routing_strategy"] =
      mixlora ? std::string(routings[std::size_t(config.routing)]) : std::string(name_of(config.kind));
  tree["num_experts"] = config.num_experts;
  if (mixlora && !config.activation.empty()) tree["act_fn"] = config.activation;
  if (config.kind == MoePeftKind::mola || (mixlora && config.routing == MoePeftRouting::top_k))
    tree["top_k"] = config.k;
  if (mixlora && config.routing == MoePeftRouting::dynamic) {
    tree["top_p"] = config.p;
    tree["temperature"] = config.temperature;
  }
  if (mixlora && config.routing == MoePeftRouting::switched) tree["expert_capacity"] = config.capacity;
  if (config.kind == MoePeftKind::dynmole) {
    tree["entropy_threshold"] = config.entropy_threshold;
    tree["entropy_index"] = config.entropy_index;
    tree["entropy_type"] = config.renyi ? "renyi" : "tsallis";
    tree["entropy_eps"] = config.entropy_shift;
    tree["keep_top_k"] = config.k;
    tree["top_p"] = config.p;
  }
  return tree.dump(2) + "\n";
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
