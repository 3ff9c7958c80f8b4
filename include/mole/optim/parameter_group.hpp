// SPDX-License-Identifier: MIT
// ParameterGroup: settings for some tensors that differ from the optimizer's own.
#pragma once

#include "mole/core/error.hpp"

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mole/core/macros_off.hpp"

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

/// Throws Error(option) for a group that applies to no tensor of `walk`: a misspelled name would change nothing.
template <class Walk>
void check_groups(std::span<const ParameterGroup> groups, Walk&& walk) {
  for (const ParameterGroup& group : groups) {
    bool applies = false;
    walk([&](std::string_view name, auto...) { applies = applies || name.find(group.contains) != name.npos; });
    require(applies, ErrorCode::option, "ParameterGroup: expected a part of a tensor's name, found '", group.contains,
            "'");
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
