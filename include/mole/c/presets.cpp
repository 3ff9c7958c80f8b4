// SPDX-License-Identifier: MIT
#include "mole/c/preset.hpp"

#include "mole/core/error.hpp"

#include <algorithm>

namespace mole::c {

std::span<const Preset> all_presets() {
  static const std::vector<Preset> all = [] {
    std::vector<Preset> presets = lora_mixture_presets();
    for (const auto& others :
         {single_adapter_presets(), other_expert_presets(), shared_pool_presets(), block_presets()})
      presets.insert(presets.end(), others.begin(), others.end());
    std::ranges::sort(presets, {}, [](const Preset& preset) { return std::string_view(preset.name); });
    return presets;
  }();
  return all;
}

const Preset& preset_named(std::string_view name) {
  std::string names;
  for (const Preset& preset : all_presets()) {
    if (preset.name == name) return preset;
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
  }
  detail::fail(ErrorCode::option,
               {"mole_layer_create: expected a preset among ", names, ", found '", name.substr(0, 60), "'"});
}

}  // namespace mole::c
