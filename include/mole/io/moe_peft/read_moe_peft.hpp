// SPDX-License-Identifier: MIT
// read_moe_peft(), MoePeftAdapter: a mixture as a folder of MoE-PEFT's holds it, tensor by tensor.
#pragma once

#include "mole/io/moe_peft/moe_peft_config.hpp"
#include "mole/io/peft/peft_adapter.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The LoRA of one module, or of one of its experts.
struct MoePeftPair {
  std::optional<PeftTensor> a, b;  ///< [r x I], [O x r]
};

/// "model.layers.0.mlp.up_proj", or of MixLoRA also the block "model.layers.0.mlp", which has a gate alone.
struct MoePeftModule {
  std::string path;
  std::optional<PeftTensor> gate;     ///< [E x I]
  std::vector<MoePeftPair> experts;   ///< E, or none
  std::optional<MoePeftPair> single;  ///< without experts
};

/// The configuration and all tensors. Movable; views live as long as it.
struct MoePeftAdapter {
  std::string source;  ///< the folder
  MoePeftConfig config;
  std::map<std::string, MoePeftModule, std::less<>> modules;
  ReadReport report;  ///< unused: the head of a classification task, and what target_modules does not name
  std::shared_ptr<const SafetensorsShards> files;

  /// Throws Error(option) unless there is that module.
  const MoePeftModule& at(std::string_view path) const {
    if (const auto found = modules.find(path); found != modules.end()) return found->second;
    throw Error(ErrorCode::option, source + ": expected one of its " + std::to_string(modules.size()) +
                                       " modules, such as '" + (modules.empty() ? "" : modules.begin()->first) +
                                       "', found '" + std::string(path) + "'");
  }
};

/// MixLoRA, its dynamic and its Switch routing, MoLA, LoRAMoE and DynMoLE: adapter_config.json with
/// adapter_model.safetensors, which examples/convert/bin2safetensors.py makes of the release's adapter_model.bin; that
/// file itself, a pickle, is refused. MixLoRA's older names (`layers.<L>.gate`, `experts.<e>.w1_proj`) are read, too.
///
/// Checks names, dtypes, that no expert and no router is missing, and that sizes and ranks fit. Throws Error(file) for
/// what is broken or not served, and if there is no expert.  O(n log n) for n tensors, which are mapped, not read.
/// Source: TUDB-Labs/MoE-PEFT, moe_peft/model.py; TUDB-Labs/MixLoRA; mikecovlee/DynMoLE.
MoePeftAdapter read_moe_peft(const std::filesystem::path& folder);

/// The same of what is open already; `source` names both.
MoePeftAdapter read_moe_peft(std::string_view config, SafetensorsShards files, const std::string& source);

namespace detail {

/// Where a tensor belongs: a module, one of its experts, and what of it.
struct MoePeftPlace {
  enum class What { gate, a, b } what = What::gate;
  std::string path;
  Index expert = -1;
};

inline bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}
inline bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}
/// The number that follows the last `step` in `text`, which then ends before that step.
inline std::optional<Index> take_number(std::string_view& text, std::string_view step) {
  const std::size_t at = text.rfind(step);
  if (at == text.npos) return {};
  const std::string_view digits = text.substr(at + step.size());
  Index number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || number < 0) return {};
  if (digits.size() > 1 && digits[0] == '0') return {};  // one name for each expert
  text = text.substr(0, at);
  return number;
}

/// None for a tensor that is no part of the mixture.
inline std::optional<MoePeftPlace> moe_peft_place(MoePeftKind kind, std::string_view name) {
  if (!take_prefix(name, name_of(kind)) || !take_prefix(name, ".layers.")) return {};
  MoePeftPlace place;
  std::string_view rest = name;
  const std::string_view layer = rest.substr(0, rest.find('.'));
  const std::string block = "model.layers." + std::string(layer) + ".mlp";
  if (take_suffix(rest, ".moe_gate.weight")) {
    place.path = "model.layers." + std::string(rest);
    return place;
  }
  if (kind == MoePeftKind::mixlora && rest == std::string(layer) + ".gate.weight") {
    place.path = block;
    return place;
  }
  if (take_suffix(rest, ".lora_A.weight"))
    place.what = MoePeftPlace::What::a;
  else if (take_suffix(rest, ".lora_B.weight"))
    place.what = MoePeftPlace::What::b;
  else
    return {};
  constexpr std::pair<std::string_view, std::string_view> older[] = {
      {".w1_proj", ".gate_proj"}, {".w2_proj", ".down_proj"}, {".w3_proj", ".up_proj"}};
  for (const auto& [before, now] : older) {
    std::string_view expert = rest;
    if (kind != MoePeftKind::mixlora || !take_suffix(expert, before)) continue;
    const auto number = take_number(expert, ".experts.");
    if (!number || expert != layer) return {};
    place.path = block + std::string(now);
    place.expert = *number;
    return place;
  }
  if (const auto number = take_number(rest, ".experts.")) place.expert = *number;
  place.path = "model.layers." + std::string(rest);
  return place;
}

class MoePeftReading {
 public:
  explicit MoePeftReading(MoePeftAdapter& adapter) : adapter_(adapter) {}

  void run() {
    for (const auto& [name, file] : adapter_.files->tensors()) place(name, {file, &file->at(name)});
    for (auto& [path, experts] : experts_) take(adapter_.modules.at(path), experts);
    bool experts = false;
    for (const auto& [path, module] : adapter_.modules) {
      check(module);
      experts = experts || !module.experts.empty();
    }
    if (!experts)
      throw file_error(
          adapter_.source, "experts '" + std::string(name_of(config().kind)) + ".layers.<layer>...'",
          adapter_.files->tensors().empty() ? "no tensor" : "'" + adapter_.files->tensors().begin()->first + "'");
    for (const std::string& target : config().target_modules) {
      const bool found =
          std::ranges::any_of(adapter_.modules, [&](const auto& module) { return last_of(module.first) == target; });
      if (!found) adapter_.report.missing.push_back(target);
    }
  }

 private:
  const MoePeftConfig& config() const { return adapter_.config; }
  static std::string_view last_of(std::string_view path) { return path.substr(path.rfind('.') + 1); }
  static bool is_block(std::string_view path) { return path.ends_with(".mlp"); }

  void place(const std::string& name, PeftTensor tensor) {
    const std::optional<MoePeftPlace> place = moe_peft_place(config().kind, name);
    const bool targeted = place && ((is_block(place->path) && place->what == MoePeftPlace::What::gate) ||
                                    config().target_modules.contains(last_of(place->path)));
    if (!targeted) return adapter_.report.unused.push_back(name);
    const Dtype dtype = tensor.entry->dtype;
    if (dtype != Dtype::f64 && dtype != Dtype::f32 && dtype != Dtype::f16 && dtype != Dtype::bf16)
      fail(name, "F64, F32, F16 or BF16", std::string(name_of(dtype)));
    if (tensor.shape().size() != 2 || tensor.entry->bytes.empty())
      fail(name, "a matrix with numbers", std::to_string(tensor.shape().size()) + " dimensions, or none");
    MoePeftModule& module = adapter_.modules[place->path];
    module.path = place->path;
    std::optional<PeftTensor>* to = &module.gate;
    if (place->what != MoePeftPlace::What::gate) {
      if (place->expert >= config().num_experts)
        fail(name, std::to_string(config().num_experts) + " experts, as in adapter_config.json",
             "number " + std::to_string(place->expert));
      if (place->expert < 0 && !module.single) module.single.emplace();
      MoePeftPair& pair = place->expert < 0 ? *module.single : experts_[place->path][place->expert];
      to = place->what == MoePeftPlace::What::a ? &pair.a : &pair.b;
    }
    if (to->has_value()) fail(name, "one tensor of that place", "two");
    *to = tensor;
    adapter_.report.used.push_back(name);
  }

  /// A list of them has no more places than there are tensors.
  void take(MoePeftModule& module, std::map<Index, MoePeftPair>& experts) const {
    if (Index(experts.size()) != config().num_experts)
      fail(module.path, std::to_string(config().num_experts) + " experts, as in adapter_config.json",
           std::to_string(experts.size()));
    for (auto& [number, pair] : experts) module.experts.push_back(std::move(pair));
  }

  void check(const MoePeftModule& module) const {
    const bool mixlora = config().kind == MoePeftKind::mixlora;
    if (module.single && !module.experts.empty()) fail(module.path, "experts or one LoRA", "both");
    if (module.single) check(module.path, *module.single, *module.single, config().lora.rank);
    for (const MoePeftPair& pair : module.experts)
      check(module.path, pair, module.experts.front(), config().experts.rank);
    const bool gated = mixlora ? is_block(module.path) : !module.experts.empty();
    if (module.gate.has_value() != gated)
      fail(module.path, gated ? "a router 'moe_gate.weight'" : "no router", gated ? "none" : "one");
    if (module.gate && module.gate->shape()[0] != config().num_experts)
      fail(module.path, "a router of " + std::to_string(config().num_experts) + " rows",
           std::to_string(module.gate->shape()[0]));
    if (module.gate && !mixlora && module.gate->shape()[1] != module.experts.front().a->shape()[1])
      fail(module.path,
           "a router of as many columns as lora_A, " + std::to_string(module.experts.front().a->shape()[1]),
           std::to_string(module.gate->shape()[1]));
    if (mixlora && !module.experts.empty()) {
      const std::string block = module.path.substr(0, module.path.rfind('.'));
      if (!adapter_.modules.contains(block)) fail(block, "a router 'moe_gate.weight'", "none");
    }
  }
  void check(const std::string& path, const MoePeftPair& pair, const MoePeftPair& first, Index rank) const {
    if (!pair.a || !pair.b || !first.a || !first.b)
      fail(path, "lora_A.weight and lora_B.weight of every expert", "one of them missing");
    if (pair.a->shape()[0] != rank || pair.b->shape()[1] != rank)
      fail(path, "a rank of " + std::to_string(rank) + ", as in adapter_config.json",
           std::to_string(pair.a->shape()[0]) + " of lora_A and " + std::to_string(pair.b->shape()[1]) + " of lora_B");
    if (pair.a->shape()[1] != first.a->shape()[1] || pair.b->shape()[0] != first.b->shape()[0])
      fail(path, "experts of the same inputs and outputs", "others");
  }
  [[noreturn]] void fail(const std::string& name, const std::string& expected, const std::string& found) const {
    throw file_error(adapter_.files->source(), expected + " for '" + name + "'", found);
  }

  MoePeftAdapter& adapter_;
  std::map<std::string, std::map<Index, MoePeftPair>, std::less<>> experts_;  // of each module, by their numbers
};

}  // namespace detail

inline MoePeftAdapter read_moe_peft(const std::filesystem::path& folder) {
  const MappedFile text(folder / "adapter_config.json");
  return read_moe_peft({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()},
                       SafetensorsShards(folder, "adapter_model"), folder.string());
}

inline MoePeftAdapter read_moe_peft(std::string_view config, SafetensorsShards files, const std::string& source) {
  MoePeftAdapter adapter;
  adapter.source = source;
  adapter.config = MoePeftConfig::parse(config, source + ", adapter_config.json");
  adapter.files = std::make_shared<const SafetensorsShards>(std::move(files));
  detail::MoePeftReading(adapter).run();
  return adapter;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
