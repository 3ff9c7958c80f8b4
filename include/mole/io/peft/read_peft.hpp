// SPDX-License-Identifier: MIT
// read_peft(): reads a folder that peft saved.
#pragma once

#include "mole/io/peft/peft_adapter.hpp"

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

struct ReadPeftOptions {
  /// Leave out what is not served, such as convolutions, and name it in the report, instead of refusing the adapter.
  bool partial = false;
};

/// The adapter in `folder`: adapter_config.json with adapter_model.safetensors, or its shards. LoRA with rsLoRA, DoRA,
/// lora_bias, patterns of ranks and alphas, target_parameters and embeddings; AdaLoRA, VeRA, RandLoRA, LoHa, LoKr; what
/// the forks of peft save that HydraLoRA, FlyLoRA and SMoRA were released with.
///
/// Checks names, dtypes, dimensions, that no module lacks a part, and ranks; the numbers are not looked at. Tensors of
/// no module are `replaced` ones if the configuration names them (modules_to_save, bias) or they are those of a
/// base_layer, else unused: peft also saves embeddings whose size was changed, which nothing tells but their names, and
/// loads them where its model has such a tensor.
/// Throws Error(file) for what is broken or not served, and if nothing is attached to any module.
/// O(n log n) for n tensors; what they hold is mapped, not read.
/// Source: huggingface/peft 0.21.2, peft_model.py and utils/save_and_load.py.
PeftAdapter read_peft(const std::filesystem::path& folder, const ReadPeftOptions& options = {});

/// The same of what is open already: the text of an adapter_config.json, and the tensors; `source` names both.
PeftAdapter read_peft(std::string_view config, SafetensorsShards files, const std::string& source,
                      const ReadPeftOptions& options = {});

/// The names of the sub-folders with an adapter, in order: peft saves one there for each adapter that is not "default".
inline std::vector<std::string> peft_adapters_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error))
    if (std::filesystem::exists(entry.path() / "adapter_config.json", error))
      names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

/// All adapters of a folder: its own, if it has one, then those in its sub-folders, in the order of their names. Throws
/// Error(file) as read_peft(), and for a folder without any.
inline std::vector<PeftAdapter> read_peft_adapters(const std::filesystem::path& folder,
                                                   const ReadPeftOptions& options = {}) {
  const std::vector<std::string> names = peft_adapters_in(folder);
  std::vector<PeftAdapter> adapters;
  std::error_code ignored;
  if (names.empty() || std::filesystem::exists(folder / "adapter_config.json", ignored))
    adapters.push_back(read_peft(folder, options));
  for (const std::string& name : names) adapters.push_back(read_peft(folder / name, options));
  return adapters;
}

namespace detail {

class PeftReading {
 public:
  PeftReading(PeftAdapter& adapter, const ReadPeftOptions& options)
      : adapter_(adapter), options_(options), saved_(config().modules_to_save.begin(), config().modules_to_save.end()) {
    for (const std::string& parameter : config().target_parameters) {
      const std::size_t dot = parameter.rfind('.');
      if (dot == parameter.npos)
        any_holder_ = true;
      else
        holders_.insert(parameter.substr(0, dot));
    }
    if (!config().target_is_expression) targets_ = {config().target_modules.begin(), config().target_modules.end()};
  }

  void run() {
    for (const auto& [name, file] : adapter_.files->tensors()) place(name, {file, &file->at(name)});
    for (auto& [path, module] : modules_) {
      const bool complete = is_complete(module);
      for (const auto& [suffix, tensor] : module.tensors)
        (complete ? adapter_.report.used : adapter_.report.refused).push_back(tensor.entry->name);
      if (complete) adapter_.modules.push_back(std::move(module));
    }
    if (adapter_.modules.empty() && adapter_.replaced.empty())
      throw file_error(
          adapter_.source,
          "tensors of a " + std::string(name_of(adapter_.config.kind)) +
              " adapter, such as 'base_model.model.<module>." + std::string(first_suffix()) + "'",
          adapter_.files->tensors().empty() ? "none" : "'" + adapter_.files->tensors().begin()->first + "'");
    report_missing();
  }

 private:
  static constexpr std::size_t max_name = 1000, max_steps = 100;  // of a path, which is searched for those of others
  using Names = std::set<std::string, std::less<>>;

  const PeftConfig& config() const { return adapter_.config; }
  std::string_view first_suffix() const { return std::ranges::find(peft_keys, config().kind, &PeftKey::kind)->suffix; }

  void place(const std::string& name, PeftTensor tensor) {
    const PeftPlace place = peft_place(config().kind, name);
    if (name.find('\0') != name.npos) fail(name, "a name without a character 0", "one");
    if (name.size() > max_name)
      fail(name.substr(0, 60) + " ...", "a name of at most " + std::to_string(max_name) + " bytes",
           std::to_string(name.size()));
    if (std::ranges::count(name, '.') > std::ptrdiff_t(max_steps))
      fail(name.substr(0, 60) + " ...", "a path of at most " + std::to_string(max_steps) + " steps", "more");
    if (!place.key) {
      const std::string own = without_base_layers(place.path);
      const bool of_base = own != place.path;
      const bool is_bias = own.ends_with(".bias") || own == "bias" ||
                           (config().bias == "all" && own.find("bias") != own.npos);  // as before peft 0.21
      const bool known = of_base || is_saved(own) || (config().bias != "none" && is_bias);
      if (known) require_floats(name, tensor);
      if (known && !adapter_.replaced.emplace(own, tensor).second) fail(name, "one tensor for '" + own + "'", "two");
      (known ? adapter_.report.used : adapter_.report.unused).push_back(name);
    } else if (place.key->dimensions == 0 || int(tensor.shape().size()) != place.key->dimensions) {
      refuse(name, place.path, std::to_string(place.key->dimensions) + " dimensions, of a linear layer",
             std::to_string(tensor.shape().size()));
    } else {
      require_floats(name, tensor);
      // Sizes must follow from numbers that are there: those beside a 0 may be of any size.
      if (tensor.entry->bytes.empty() && config().kind != PeftKind::adalora) fail(name, "at least one number", "none");
      PeftTensors& tensors = place.path.empty() ? adapter_.shared : module(place.path).tensors;
      if (!tensors.emplace(place.suffix, tensor).second)
        fail(name, "one tensor '" + std::string(place.suffix) + "' of its module", "two");
      if (place.path.empty()) adapter_.report.used.push_back(name);
    }
  }

  PeftModule& module(std::string_view path) {
    const auto [found, first] = modules_.try_emplace(std::string(path));
    if (first) {
      found->second.path = path;
      const std::string own = without_base_layers(path);
      // A parameter without a module's name is one of any module that has it: of all that are no targets themselves.
      found->second.stacked = !end_among(holders_, own).empty() || (any_holder_ && end_among(targets_, own).empty());
      found->second.scale = found->second.stacked ? 0 : config().scale_of(path);
    }
    return found->second;
  }

  bool is_complete(const PeftModule& module) {
    if (refused_.contains(module.path)) return false;
    const auto has = [&](std::string_view suffix) { return module.has(suffix) || adapter_.shared.contains(suffix); };
    for (const auto& alternatives : peft_needs(config()))
      if (std::ranges::none_of(alternatives, has))
        fail(module.path, "a tensor '" + std::string(alternatives.front()) + "'", "none");
    const auto only_if = [&](bool expected, std::string_view suffix, const char* field) {
      if (module.has(suffix) != expected)
        fail(module.path,
             (expected ? "a tensor '" : "no tensor '") + std::string(suffix) + "' as " + field + " is " +
                 (expected ? "true" : "false"),
             expected ? "none" : "one");
    };
    if (config().kind == PeftKind::lora) {
      only_if(config().decomposed, "lora_magnitude_vector", "use_dora");
      if (!module.has("lora_embedding_A")) only_if(config().lora_bias, "lora_B.bias", "lora_bias");
      for (const char* table : {"lora_embedding_A", "lora_embedding_B"})
        for (const char* linear : {"lora_A.weight", "lora_B.weight", "lora_B.bias"})
          if (module.has(table) && module.has(linear))
            fail(module.path, "tensors of a linear layer or of an embedding",
                 "'" + std::string(linear) + "' and '" + table + "'");
      check_ranks(module, "lora_A.weight", "lora_B.weight");
      check_ranks(module, "lora_embedding_A", "lora_embedding_B");
    } else if (config().kind == PeftKind::adalora) {
      check_ranks(module, "lora_A", "lora_B");
    } else if (is_mixture(config().kind)) {
      check_mixture(module);
    }
    return true;
  }

  /// Sizes of ranks and experts, of what the configuration says.
  void check_mixture(const PeftModule& module) const {
    const Index rank = config().rank_of(module.path);
    const auto size_of = [&](std::string_view suffix, Index expected) {
      const Index found = module.tensors.find(suffix)->second.shape()[0];
      if (found != expected)
        fail(module.path, std::to_string(expected) + " rows of '" + std::string(suffix) + "'", std::to_string(found));
    };
    if (config().kind == PeftKind::hydralora) {
      for (Index e = 0; e < config().experts; ++e) {
        const std::string b = "lora_B" + std::to_string(e) + ".weight";
        if (!module.has(b)) fail(module.path, "a tensor '" + b + "', as of lora_nums", "none");
        check_ranks(module, "lora_A.weight", b);
      }
      if (Index(module.tensors.size()) != config().experts + 2)
        fail(module.path, std::to_string(config().experts) + " matrices B, as of lora_nums",
             std::to_string(module.tensors.size() - 2));
      size_of("lora_route.weight", config().experts);
    } else {
      check_ranks(module, "lora_A.weight", "lora_B.weight");
      size_of(config().kind == PeftKind::smora ? "lora_biases" : "lora_topk_bias", rank);
      if (config().kind != PeftKind::smora) return;
      if (rank % config().rank_partition != 0)
        fail(module.path, "a rank_partition that divides the rank " + std::to_string(rank),
             std::to_string(config().rank_partition));
      size_of("lora_router.weight", rank / config().rank_partition);
    }
  }

  /// Ranks of A and B, and of the configuration: a scale for another rank would be wrong.
  void check_ranks(const PeftModule& module, std::string_view a, std::string_view b) const {
    if (!module.has(a) || !module.has(b)) return;
    const Index rank = module.tensors.find(a)->second.shape()[0], of_b = module.tensors.find(b)->second.shape()[1];
    if (rank != of_b)
      fail(module.path,
           "as many columns of '" + std::string(b) + "' as rows of '" + std::string(a) + "', " + std::to_string(rank),
           std::to_string(of_b));
    if (!module.stacked && rank != config().rank_of(module.path))
      fail(module.path, "a rank of " + std::to_string(config().rank_of(module.path)) + ", as in adapter_config.json",
           std::to_string(rank));
  }

  void require_floats(const std::string& name, const PeftTensor& tensor) const {
    const Dtype dtype = tensor.entry->dtype;
    if (dtype != Dtype::f64 && dtype != Dtype::f32 && dtype != Dtype::f16 && dtype != Dtype::bf16)
      fail(name, "F64, F32, F16 or BF16", std::string(name_of(dtype)));
  }
  void refuse(const std::string& name, std::string_view path, const std::string& expected, const std::string& found) {
    if (!options_.partial) fail(name, expected, found);
    adapter_.report.refused.push_back(name);
    refused_.insert(std::string(path));
    module(path);
  }
  [[noreturn]] void fail(const std::string& name, const std::string& expected, const std::string& found) const {
    throw file_error(adapter_.files->source(), expected + " for '" + name + "'", found);
  }

  /// The name, of `names`, that `path` is or that follows one of its dots; else empty.
  static std::string_view end_among(const Names& names, std::string_view path) {
    for (;;) {
      if (const auto found = names.find(path); found != names.end()) return *found;
      const std::size_t dot = path.find('.');
      if (dot == path.npos) return {};
      path.remove_prefix(dot + 1);
    }
  }
  /// Is the tensor within a module to be saved? peft takes modules_to_save for ends of paths, whether or not a step
  /// begins there: "head" is also "lm_head".
  bool is_saved(std::string_view name) {
    if (saved_.empty()) return false;
    for (std::size_t dot = name.rfind('.'); dot != name.npos && dot > 0; dot = name.rfind('.', dot - 1))
      for (std::string_view end = name.substr(0, dot); !end.empty(); end.remove_prefix(1))
        if (saved_.contains(end)) return found_.emplace(end), true;
    return false;
  }
  /// Are all modules of that target excluded, or, by an expression, perhaps all?
  bool is_excluded(const std::string& target) const {
    return config().exclude_is_expression || std::ranges::any_of(config().exclude_modules, [&](const auto& excluded) {
             return target == excluded || target.ends_with("." + excluded);
           });
  }
  /// Of what the configuration names, all that no tensor belongs to.
  void report_missing() {
    Names found;
    for (const PeftModule& module : adapter_.modules)
      for (std::string_view path = module.path;;) {
        if (targets_.contains(path)) found.emplace(path);
        const std::size_t dot = path.find('.');
        if (dot == path.npos) break;
        path.remove_prefix(dot + 1);
      }
    for (const std::string& target : config().target_modules)
      if (targets_.contains(target) && !found.contains(target) && !is_excluded(target))
        adapter_.report.missing.push_back(target);
    for (const std::string& saved : config().modules_to_save)
      if (!found_.contains(saved)) adapter_.report.missing.push_back(saved);
  }

  PeftAdapter& adapter_;
  const ReadPeftOptions& options_;
  const Names saved_;
  Names targets_, holders_, found_;  // ... what has a target parameter, and of saved_ what was found
  bool any_holder_ = false;          // of a target parameter whose module is not named
  std::map<std::string, PeftModule> modules_;
  std::set<std::string> refused_;
};

}  // namespace detail

inline PeftAdapter read_peft(const std::filesystem::path& folder, const ReadPeftOptions& options) {
  const std::filesystem::path config = folder / "adapter_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(config, ignored)) {
    const std::vector<std::string> names = peft_adapters_in(folder);
    throw file_error(folder.string(), "a file adapter_config.json",
                     names.empty() ? "none" : "adapters in its sub-folders, such as '" + names.front() + "'");
  }
  const MappedFile text(config);
  return read_peft({reinterpret_cast<const char*>(text.bytes().data()), text.bytes().size()},
                   SafetensorsShards(folder, "adapter_model"), folder.string(), options);
}

inline PeftAdapter read_peft(std::string_view config, SafetensorsShards files, const std::string& source,
                             const ReadPeftOptions& options) {
  PeftAdapter adapter;
  adapter.source = source;
  adapter.config = PeftConfig::parse(config, source + ", adapter_config.json");
  adapter.files = std::make_shared<const SafetensorsShards>(std::move(files));
  detail::PeftReading(adapter, options).run();
  return adapter;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
