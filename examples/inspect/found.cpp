// SPDX-License-Identifier: MIT
#include "inspect/found.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace inspect {

namespace {

using namespace mole;

std::string text_of(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

bool begins_with_gguf(const std::filesystem::path& path) {
  const MappedFile file(path);
  return file.bytes().size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0;
}

Found xlora(const std::filesystem::path& folder, const char* config, const char* stem) {
  FoundXlora found{
      XloraConfig::parse(text_of(folder / config), (folder / config).string()), SafetensorsShards(folder, stem), {}};
  std::error_code ignored;
  const bool complete = std::ranges::all_of(found.config.adapters, [&](const std::string& name) {
    return std::filesystem::path(name).filename() == name &&
           std::filesystem::exists(folder / name / "adapter_config.json", ignored);
  });
  if (complete) found.adapters = read_xlora(folder).adapters;
  return found;
}

Found adapter(const std::filesystem::path& folder) {
  const std::filesystem::path config = folder / "adapter_config.json";
  const auto tree = mole::detail::LimitedJson::object(text_of(config), config.string());
  std::string type = tree.contains("peft_type") && tree["peft_type"].is_string() ? tree["peft_type"] : "";
  std::ranges::transform(type, type.begin(), [](char c) { return c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c; });
  if (type == "XLORA") return xlora(folder, "adapter_config.json", "adapter_model");
  for (const std::string_view mixture : {"MIXLORA", "MOLA", "LORAMOE", "DYNMOLE"})
    if (type == mixture) return read_moe_peft(folder);
  return read_peft_adapters(folder, {.partial = true});
}

Found file(const std::filesystem::path& path) {
  if (begins_with_gguf(path)) return GgufReader(path);
  SafetensorsReader reader(path);
  const bool layers = std::ranges::any_of(
      reader.metadata(), [](const auto& text) { return text.first.ends_with(mole::detail::layer_key); });
  SafetensorsShards tensors(std::move(reader), path.string());
  if (layers) return FoundLayers{std::make_unique<LayerReader>(path), std::move(tensors)};
  return FoundTensors{std::move(tensors)};
}

}  // namespace

Found open(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto has = [&](const char* name) { return std::filesystem::exists(path / name, ignored); };
  if (std::filesystem::is_directory(path, ignored)) {
    if (has("xlora_config.json")) return xlora(path, "xlora_config.json", "xlora_classifier");
    if (has("adapter_config.json")) return adapter(path);
    if (!peft_adapters_in(path).empty()) return read_peft_adapters(path, {.partial = true});
    return FoundTensors{SafetensorsShards::of(path)};
  }
  const std::string name = path.filename().string();
  if (name.starts_with("adapter_model.") &&
      std::filesystem::exists(path.parent_path() / "adapter_config.json", ignored))
    return adapter(path.parent_path());
  if (name.ends_with(".index.json")) return FoundTensors{SafetensorsShards::of(path)};
  return file(path);
}

}  // namespace inspect
