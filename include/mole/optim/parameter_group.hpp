// SPDX-License-Identifier: MIT
// ParameterGroup: settings for some tensors that differ from the optimizer's own.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mole {

/// Applies to every tensor whose name contains `contains`; an empty string matches all.
struct ParameterGroup {
  std::string contains;
  double learning_rate_scale = 1;
  std::optional<double> weight_decay = {};  ///< instead of the optimizer's
};

/// The first group that applies to `name`, or nullptr.
inline const ParameterGroup* group_of(std::span<const ParameterGroup> groups, std::string_view name) {
  for (const ParameterGroup& group : groups)
    if (name.find(group.contains) != name.npos) return &group;
  return nullptr;
}

}  // namespace mole
