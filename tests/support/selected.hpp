// SPDX-License-Identifier: MIT
// selected(): the experts that a selection chooses for one token.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/select/select_policy.hpp"

#include <span>
#include <vector>

namespace support {

/// The chosen experts, in their order; `columns` scores more than experts belong to the token.
template <class Select, class T>
std::vector<int> selected(const Select& select, const std::vector<T>& scores, mole::Index columns = 0) {
  const mole::Index experts = mole::Index(scores.size()) - columns;
  if constexpr (requires { select.check(experts); }) select.check(experts);
  std::vector<int> chosen(std::size_t(select.max_chosen(experts)), -1);
  const mole::Index count = select.select(std::span<const T>(scores), experts, std::span<int>(chosen));
  chosen.resize(std::size_t(count));
  return chosen;
}

/// Does `select` refuse so many experts with Error(option)?
template <class Policy>
bool refuses(const Policy& policy, mole::Index experts) {
  try {
    policy.check(experts);
  } catch (const mole::Error& error) {
    return error.code() == mole::ErrorCode::option;
  }
  return false;
}

}  // namespace support
