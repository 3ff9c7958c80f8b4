// SPDX-License-Identifier: MIT
// ParameterGroup: settings for some tensors that differ from the optimizer's own.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"

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

namespace detail {
/// Throws Error(option), naming what it is, unless a rate, a decay or a factor of one is 0 or from 1e-30 to 1e30.
inline void require_rate(std::string_view who, std::string_view what, double rate) {
  require(rate == 0 || (rate > 0 && in_float_range(rate)), ErrorCode::option, who, ": expected a ", what,
          " of 0, or from 1e-30 to 1e30, found ", rate);
}
inline void require_rates(std::span<const ParameterGroup> groups) {
  for (const ParameterGroup& group : groups) {
    require_rate("ParameterGroup", "learning_rate_scale", group.learning_rate_scale);
    require_rate("ParameterGroup", "weight_decay", group.weight_decay.value_or(0));
  }
}
}  // namespace detail

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
