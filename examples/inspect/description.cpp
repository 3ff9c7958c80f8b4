// SPDX-License-Identifier: MIT
#include "inspect/description.hpp"

#include "inspect/tensors.hpp"

#include "mole/io/gguf/gguf_lora.hpp"
#include "mole/surgery/update_sum.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace inspect {

namespace {

using namespace mole;

std::string few(const std::vector<std::string>& names) {
  std::string text = std::to_string(names.size()) + ": ";
  for (std::size_t i = 0; i < names.size() && i < 3; ++i) text += (i > 0 ? ", " : "") + names[i];
  return text + (names.size() > 3 ? ", ..." : "");
}

/// What is worth a second look, one line each.
class Unusual {
 public:
  void say(std::string line) { lines_.push_back(std::move(line)); }
  void names(const std::string& what, const std::vector<std::string>& names) {
    if (!names.empty()) say(what + " " + few(names));
  }
  void report(const ReadReport& report) {
    names("tensors that belong to nothing,", report.unused);
    names("named by the configuration, but not there,", report.missing);
    names("tensors of kinds that are not served,", report.refused);
  }
  void tensors(const TensorList& list) { names("tensors with NaN or infinity,", list.not_finite()); }
  template <class Values>
  void differ(const char* what, const Values& values) {
    if (values.size() < 2) return;
    std::string text;
    for (const auto& value : values) text += (text.empty() ? "" : ", ") + Json(value).dump();
    say(std::string(what) + " differ: " + text);
  }
  Json json() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

/// The update's norm; null if not all of A and B are finite.
Json norm_of(double scale, const Matrix<float>& a, const Matrix<float>& b) {
  for (const Matrix<float>* factor : {&a, &b})
    if (!std::ranges::all_of(factor->elements(), [](float number) { return std::isfinite(number); })) return nullptr;
  UpdateSum sum(a.cols(), b.cols());
  sum.add(scale, a.view(), b.view());
  return sum.norm();
}

Json finished(Json json, const TensorList& tensors, const Unusual& unusual) {
  json.update(tensors.summary());
  json["unusual"] = unusual.json();
  json["tensor_list"] = tensors.rows();
  return json;
}

std::string method_of(const PeftConfig& config) {
  std::string name(name_of(config.kind));
  if (config.rank_stabilized) name += ", rank-stabilized";
  if (config.decomposed) name += ", decomposed (DoRA)";
  if (config.lora_bias) name += ", with a bias of B";
  if (!config.target_parameters.empty()) name += ", of stacked experts";
  return name;
}

Json module_of(const PeftModule& module, const PeftConfig& config) {
  Json row{{"path", module.path}, {"rank", config.rank_of(module.path)}, {"scale", module.scale}};
  const bool table = module.has("lora_embedding_A");
  const auto a = module.tensors.find(table ? "lora_embedding_A" : "lora_A.weight"),
             b = module.tensors.find(table                                ? "lora_embedding_B"
                                     : config.kind == PeftKind::hydralora ? "lora_B0.weight"
                                                                          : "lora_B.weight");
  if (a == module.tensors.end() || b == module.tensors.end()) return row;
  row["in"] = a->second.shape()[1];
  row["out"] = b->second.shape()[0];
  if (config.kind == PeftKind::hydralora)
    row["experts"] = config.experts;
  else if (is_mixture(config.kind))
    row["k"] = config.k;
  else if (module.stacked)
    row["rank"] = a->second.shape()[0], row["scale"] = nullptr;
  else if (!config.decomposed)  // of DoRA, the base's weight decides what is added
    row["norm"] = norm_of(module.scale, a->second.matrix<float>(), b->second.transposed<float>());
  return row;
}

Json describe_one(const PeftAdapter& adapter) {
  const PeftConfig& config = adapter.config;
  Json json{{"path", adapter.source}, {"format", "adapter of peft"}, {"method", method_of(config)}};
  if (!config.base.empty()) json["base"] = config.base;
  if (!config.task.empty()) json["task"] = config.task;
  json["dropout"] = config.dropout;
  TensorList tensors;
  tensors.add(*adapter.files);
  Unusual unusual;
  unusual.report(adapter.report);
  unusual.tensors(tensors);
  std::set<Index> ranks;
  std::set<double> scales;
  std::vector<std::string> nothing;
  json["modules"] = Json::array();
  for (const PeftModule& module : adapter.modules) {
    json["modules"].push_back(module_of(module, config));
    ranks.insert(config.rank_of(module.path));
    scales.insert(module.scale);
    for (const char* suffix : {"lora_B.weight", "lora_embedding_B"})
      if (const auto b = module.tensors.find(suffix); b != module.tensors.end() && tensors.zero(b->second.entry->name))
        nothing.push_back(module.path);
    if (module.scale == 0 && !module.stacked) unusual.say("a scale of 0 of '" + module.path + "'");
  }
  unusual.names("modules that add nothing, as B is 0,", nothing);
  unusual.differ("ranks", ranks);
  unusual.differ("scales", scales);
  if (tensors.types().size() > 1) unusual.say("tensors of several types");
  if (config.changes_base()) unusual.say("starts from " + config.init + ", which has changed the weights of the base");
  if (!config.rank_pattern.empty() || !config.alpha_pattern.empty()) unusual.say("patterns of ranks or alphas");
  std::vector<std::string> replaced;
  for (const auto& [name, tensor] : adapter.replaced) replaced.push_back(name);
  unusual.names("tensors that replace the host's own,", replaced);
  return finished(std::move(json), tensors, unusual);
}

Json describe_found(const std::vector<PeftAdapter>& adapters, const std::filesystem::path& path) {
  if (adapters.size() == 1) return describe_one(adapters.front());
  Json json{{"path", path.string()}, {"format", std::to_string(adapters.size()) + " adapters of peft"}};
  json["adapters"] = Json::array();
  for (const PeftAdapter& adapter : adapters) json["adapters"].push_back(describe_one(adapter));
  return json;
}

Json describe_found(const FoundXlora& found, const std::filesystem::path& path) {
  const XloraConfig& config = found.config;
  Json json{{"path", path.string()}, {"format", "X-LoRA"}, {"method", "X-LoRA"}, {"hidden_size", config.hidden_size}};
  json["experts"] = config.adapters;
  json["depth_of_classifier"] = config.depth;
  json["layerwise"] = config.layerwise;
  json["top_k"] = config.k == 0 ? Json("all") : Json(config.k);
  json["temperature"] = config.temperature;
  TensorList tensors;
  tensors.add(found.classifier);
  Unusual unusual;
  unusual.tensors(tensors);
  if (found.adapters.empty()) unusual.say("its adapters are not in the folder");
  json["adapters"] = Json::array();
  for (const PeftAdapter& adapter : found.adapters) json["adapters"].push_back(describe_one(adapter));
  return finished(std::move(json), tensors, unusual);
}

Json describe_found(const MoePeftAdapter& adapter, const std::filesystem::path&) {
  const MoePeftConfig& config = adapter.config;
  Json json{{"path", adapter.source}, {"format", "mixture of MoE-PEFT"}, {"method", name_of(config.kind)}};
  json["experts"] = config.num_experts;
  if (config.kind != MoePeftKind::loramoe) json["k"] = config.k;
  TensorList tensors;
  tensors.add(*adapter.files);
  Unusual unusual;
  unusual.report(adapter.report);
  unusual.tensors(tensors);
  json["modules"] = Json::array();
  for (const auto& [path, module] : adapter.modules) {
    const MoePeftLora& lora = module.single ? config.lora : config.experts;
    Json row{{"path", path}, {"experts", module.experts.size()}, {"router", module.gate.has_value()}};
    if (module.single || !module.experts.empty()) {
      const MoePeftPair& pair = module.single ? *module.single : module.experts.front();
      row.update(
          {{"rank", lora.rank}, {"scale", lora.scale()}, {"in", pair.a->shape()[1]}, {"out", pair.b->shape()[0]}});
    }
    json["modules"].push_back(std::move(row));
  }
  return finished(std::move(json), tensors, unusual);
}

Json describe_found(const GgufReader& reader, const std::filesystem::path& path) {
  const auto text = [&](const char* key) -> Json {
    const auto found = reader.metadata().find(key);
    if (found == reader.metadata().end() || !std::holds_alternative<std::string>(found->second)) return nullptr;
    return std::get<std::string>(found->second);
  };
  const bool adapter = text("general.type") == "adapter";
  Json json{{"path", path.string()}, {"format", adapter ? "adapter of llama.cpp" : "model of llama.cpp"}};
  json["architecture"] = text("general.architecture");
  TensorList tensors;
  std::vector<std::string> others;
  for (const GgufEntry& entry : reader.tensors()) {
    tensors.add(entry, name_of(entry.type));
    if (!tensors.rows().back().contains("norm")) others.push_back(entry.name);
  }
  Unusual unusual;
  unusual.tensors(tensors);
  unusual.names("tensors of types that are not decoded,", others);
  if (adapter) {
    const GgufLora lora = read_gguf_lora(reader);
    json["method"] = "LORA";
    unusual.report(lora.report);
    std::set<Index> ranks;
    json["modules"] = Json::array();
    for (const auto& [tensor, experts] : lora.adapters) {
      const Adapter<float>& first = experts.front();
      ranks.insert(first.rank());
      Json row{
          {"path", tensor}, {"rank", first.rank()}, {"scale", first.scale}, {"in", first.in()}, {"out", first.out()}};
      if (experts.size() > 1)
        row["experts"] = experts.size();
      else
        row["norm"] = norm_of(first.scale, first.a, first.b);
      json["modules"].push_back(std::move(row));
    }
    unusual.differ("ranks", ranks);
  }
  return finished(std::move(json), tensors, unusual);
}

Json describe_found(const FoundLayers& found, const std::filesystem::path& path) {
  Json json{{"path", path.string()}, {"format", "layers of mole"}};
  TensorList tensors;
  tensors.add(found.tensors);
  Unusual unusual;
  unusual.tensors(tensors);
  json["modules"] = Json::array();
  for (const std::string& name : found.layers->names()) {
    const LayerReader::Sizes sizes = found.layers->sizes(name);
    const Json description = Json::parse(found.layers->description(name));
    const Json& described = description.contains("up") ? description["up"] : description;  // a block has three maps
    if (!described.is_object())
      throw file_error(found.layers->source() + ": layer '" + name + "'", "an object for 'up'",
                       described.dump().substr(0, 60));
    json["modules"].push_back({{"path", name},
                               {"method", found.layers->method(name)},
                               {"in", sizes.in},
                               {"out", sizes.out},
                               {"base", described.value("base", Json())},
                               {"experts", described.value("experts", Json())}});
    if (described.value("base", Json()) == "unknown") unusual.say("no base is known of '" + name + "'");
  }
  return finished(std::move(json), tensors, unusual);
}

Json describe_found(const FoundTensors& found, const std::filesystem::path& path) {
  bool coded = false, trained = false;
  for (const auto& [name, reader] : found.tensors.tensors()) {
    coded = coded || name.find(".quant_state.bitsandbytes__") != name.npos || name.ends_with(".SCB");
    const auto format = reader->metadata().find("format");
    trained = trained || (format != reader->metadata().end() && format->second.starts_with("mole.checkpoint"));
  }
  Json json{{"path", path.string()},
            {"format", trained ? "checkpoint of mole"
                       : coded ? "checkpoint in safetensors, with weights of bitsandbytes"
                               : "checkpoint in safetensors"},
            {"files", found.tensors.files()}};
  TensorList tensors;
  tensors.add(found.tensors);
  Unusual unusual;
  unusual.tensors(tensors);
  return finished(std::move(json), tensors, unusual);
}

}  // namespace

Json describe(const Found& found, const std::filesystem::path& path) {
  return std::visit([&](const auto& each) { return describe_found(each, path); }, found);
}

}  // namespace inspect
