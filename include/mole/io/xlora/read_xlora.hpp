// SPDX-License-Identifier: MIT
// read_xlora(), XloraAdapter: a classifier and the adapters that it mixes, in both layouts.
#pragma once

#include "mole/io/peft/read_peft.hpp"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What of the configuration changes the arithmetic. Defaults are those of both releases.
struct XloraConfig {
  std::vector<std::string> adapters;  ///< names, in the order of the experts
  Index hidden_size = 0;
  Index depth = 1;            ///< linear maps of the classifier
  bool activations = true;    ///< a ReLU between them: enable_relu_and_dropout, always in peft's newer versions
  double dropout = 0.2;       ///< after each ReLU
  bool layerwise = false;     ///< gates for each layer, else one decision for all
  bool softmax = true;        ///< of all scalings, else they are the logits
  bool softmax_topk = false;  ///< of the chosen
  double temperature = 1;
  Index k = 0;  ///< 0: all
  double global_scaling_weight = 1;
  double scaling_pass_value = 0;    ///< the gates of the first pass; 1 / experts if the file has null
  bool trainable_adapters = false;  ///< else they are frozen, without dropout

  /// Throws Error(file), naming `source`, for broken JSON and fields of wrong types or ranges, and for use_mean_pool,
  /// of versions that pooled a sequence.
  static XloraConfig parse(std::string_view json, const std::string& source);
};

/// Movable; views live as long as it.
struct XloraAdapter {
  struct Linear {
    PeftTensor weight;               ///< [out x in]
    std::optional<PeftTensor> bias;  ///< [out]
  };

  std::string source;  ///< the folder
  XloraConfig config;
  std::vector<PeftAdapter> adapters;  ///< for peft_bank()
  std::vector<Linear> classifier;     ///< from the hidden state to the scalings
  Index layers = 1;                   ///< that have gates of their own
  ReadReport report;                  ///< of the classifier's file
  std::shared_ptr<const SafetensorsShards> files;
};

/// The folder of EricLBuehler/xlora, xlora_config.json with xlora_classifier.safetensors and a sub-folder for each
/// adapter, or that of peft, adapter_config.json (XLORA) with adapter_model.safetensors.
///
/// peft saves no adapters beside the classifier: then, and to take others, `adapters` are given, in the order of the
/// configuration. As peft 0.21.2 names them "0", "1" ..., it also leaves out maps of the classifier with these numbers;
/// such a file, which peft itself loads with random numbers in their place, is refused. Otherwise they are read from
/// the sub-folders of their names. Checks names, sizes and dtypes of the classifier. Throws Error(file) for what is
/// broken or does not fit, adapters that are not there or not as many. Source: EricLBuehler/xlora; huggingface/peft
/// 0.21.2, tuners/xlora.
XloraAdapter read_xlora(const std::filesystem::path& folder, std::vector<PeftAdapter> adapters = {});

/// The same of what is open already: configuration, classifier and adapters; `source` names them.
XloraAdapter read_xlora(std::string_view config, SafetensorsShards files, std::vector<PeftAdapter> adapters,
                        const std::string& source);

inline XloraConfig XloraConfig::parse(std::string_view json, const std::string& source) {
  const auto tree = detail::LimitedJson::object(json, source);
  const detail::PeftFields fields(tree, source);
  XloraConfig config;
  std::string type = "XLORA";
  fields.read("peft_type", type);
  if (type != "XLORA") throw file_error(source, "peft_type XLORA", "'" + type + "'");
  if (const auto* adapters = fields.find("adapters"); adapters && adapters->is_object())
    for (const auto& [name, path] : adapters->items()) config.adapters.push_back(fields.text("adapters", name));
  else
    fields.read("adapters", config.adapters);
  fields.read("hidden_size", config.hidden_size);
  if (config.hidden_size == 0) throw file_error(source, "a 'hidden_size'", "none");
  fields.read("xlora_depth", config.depth);
  fields.read("enable_relu_and_dropout", config.activations);
  fields.read("xlora_dropout_p", config.dropout);
  fields.read("layerwise_scalings", config.layerwise);
  fields.read("enable_softmax", config.softmax);
  fields.read("enable_softmax_topk", config.softmax_topk);
  fields.read("softmax_temperature", config.temperature);
  fields.read("top_k_lora", config.k);
  fields.read("global_scaling_weight", config.global_scaling_weight);
  const bool mean = tree.contains("scaling_pass_value") && tree.at("scaling_pass_value").is_null();
  if (mean && !config.adapters.empty()) config.scaling_pass_value = 1 / double(config.adapters.size());
  fields.read("scaling_pass_value", config.scaling_pass_value);
  fields.read("use_trainable_adapters", config.trainable_adapters);
  if (fields.is_set("use_mean_pool")) throw file_error(source, "no 'use_mean_pool'", "it");
  if (config.dropout < 0 || config.dropout >= 1)
    throw file_error(source, "an 'xlora_dropout_p' from 0 to less than 1", std::to_string(config.dropout));
  if (!(config.temperature > 0))
    throw file_error(source, "a 'softmax_temperature' above 0", std::to_string(config.temperature));
  if (config.depth > 8) throw file_error(source, "an 'xlora_depth' from 1 to 8", std::to_string(config.depth));
  return config;
}

namespace detail {

/// The maps of the classifier: `inner.<i>` and `last` of the official layout and of peft's first versions, or
/// `layers.<i>` of peft's newer ones, behind "...internal_xlora_classifier.". i also counts activations and dropout.
inline void read_xlora_classifier(XloraAdapter& adapter) {
  const XloraConfig& config = adapter.config;
  const SafetensorsShards& files = *adapter.files;
  const auto fail = [&](const std::string& name, const std::string& expected, const std::string& found) {
    throw file_error(files.source(), expected + " for '" + name + "'", found);
  };
  std::map<std::size_t, std::map<std::string, PeftTensor>> maps;
  constexpr std::size_t last = ~std::size_t(0);
  for (const auto& [name, file] : files.tensors()) {
    std::string_view rest = name;
    constexpr std::string_view mark = "internal_xlora_classifier.";
    if (const std::size_t at = rest.find(mark); at != rest.npos) rest.remove_prefix(at + mark.size());
    const std::string part = rest.ends_with(".weight") ? "weight" : rest.ends_with(".bias") ? "bias" : "";
    std::optional<std::size_t> map;
    if (!part.empty()) {
      rest.remove_suffix(part.size() + 1);
      if (rest == "last") map = last;
      for (const std::string_view list : {"inner.", "layers."})
        if (rest.starts_with(list)) {
          const std::string_view digits = rest.substr(list.size());
          if (!digits.empty() && digits.size() <= 2 && digits.find_first_not_of("0123456789") == digits.npos)
            map = std::stoul(std::string(digits));
        }
    }
    if (!map) {
      adapter.report.unused.push_back(name);
      continue;
    }
    const PeftTensor tensor{file, &file->at(name)};
    const Dtype dtype = tensor.entry->dtype;
    if (dtype != Dtype::f64 && dtype != Dtype::f32 && dtype != Dtype::f16 && dtype != Dtype::bf16)
      fail(name, "F64, F32, F16 or BF16", std::string(name_of(dtype)));
    if (tensor.shape().size() != (part == "weight" ? 2u : 1u) || tensor.entry->bytes.empty())
      fail(name, part == "weight" ? "a matrix with numbers" : "a vector with numbers",
           std::to_string(tensor.shape().size()) + " dimensions, or none");
    if (!maps[*map].emplace(part, tensor).second) fail(name, "one tensor of that place", "two");
    adapter.report.used.push_back(name);
  }
  if (Index(maps.size()) != config.depth)
    throw file_error(files.source(), "a classifier of " + std::to_string(config.depth) + " maps, its xlora_depth",
                     std::to_string(maps.size()) +
                         (std::ranges::find(config.adapters, "0") == config.adapters.end()
                              ? ""
                              : "; peft 0.21.2 does not save those whose number is also the name of an adapter"));
  Index in = config.hidden_size;
  for (auto& [number, parts] : maps) {
    const auto weight = parts.find("weight"), bias = parts.find("bias");
    if (weight == parts.end())
      throw file_error(files.source(), "a weight of the classifier's map " + std::to_string(adapter.classifier.size()),
                       "none");
    const std::string& name = weight->second.entry->name;
    if (weight->second.shape()[1] != in)
      fail(name, std::to_string(in) + " columns", std::to_string(weight->second.shape()[1]));
    in = weight->second.shape()[0];
    if (bias != parts.end() && bias->second.shape()[0] != in)
      fail(bias->second.entry->name, std::to_string(in) + " numbers", std::to_string(bias->second.shape()[0]));
    adapter.classifier.push_back({weight->second, bias != parts.end() ? std::optional(bias->second) : std::nullopt});
  }
  const Index experts = Index(adapter.adapters.size());
  if (config.layerwise ? in % experts != 0 : in != experts)
    fail(adapter.classifier.back().weight.entry->name,
         std::string(config.layerwise ? "a multiple of " : "") + std::to_string(experts) + " rows, of " +
             std::to_string(experts) + " adapters,",
         std::to_string(in));
  adapter.layers = in / experts;
}

/// The adapters in the sub-folders of their names, which may not lead out of the folder.
inline std::vector<PeftAdapter> xlora_adapters(const std::filesystem::path& folder, const XloraConfig& config,
                                               const std::string& source) {
  std::vector<PeftAdapter> adapters;
  for (const std::string& name : config.adapters) {
    const std::filesystem::path path(name);
    if (name.empty() || name == "." || name == ".." || path.has_root_path() || path.filename() != path)
      throw file_error(source, "names of sub-folders as 'adapters', or adapters that are given", "'" + name + "'");
    adapters.push_back(read_peft(folder / path));
  }
  return adapters;
}
}  // namespace detail

inline XloraAdapter read_xlora(std::string_view config, SafetensorsShards files, std::vector<PeftAdapter> adapters,
                               const std::string& source) {
  XloraAdapter adapter;
  adapter.source = source;
  adapter.config = XloraConfig::parse(config, source + ", its configuration");
  adapter.adapters = std::move(adapters);
  adapter.files = std::make_shared<const SafetensorsShards>(std::move(files));
  const std::size_t named = adapter.config.adapters.size(), given = adapter.adapters.size();
  if (given == 0 || (named != 0 && named != given))
    throw file_error(source, (named == 0 ? "some" : std::to_string(named)) + std::string(" adapters, which are given"),
                     std::to_string(given));
  if (adapter.config.k > Index(given))
    throw file_error(source, "a 'top_k_lora' of at most " + std::to_string(given), std::to_string(adapter.config.k));
  detail::read_xlora_classifier(adapter);
  return adapter;
}

inline XloraAdapter read_xlora(const std::filesystem::path& folder, std::vector<PeftAdapter> adapters) {
  std::error_code ignored;
  const bool official = std::filesystem::exists(folder / "xlora_config.json", ignored);
  const std::filesystem::path config = folder / (official ? "xlora_config.json" : "adapter_config.json");
  const MappedFile mapped(config);
  const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  if (adapters.empty())
    adapters = detail::xlora_adapters(folder, XloraConfig::parse(text, config.string()), config.string());
  return read_xlora(text, SafetensorsShards(folder, official ? "xlora_classifier" : "adapter_model"),
                    std::move(adapters), folder.string());
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
