// SPDX-License-Identifier: MIT
// shares_of(): frequencies from counts.
#pragma once

#include "mole/core/error.hpp"

#include <cmath>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Relative frequencies: counts over their sum; equal if all counts are 0.
/// Throws Error(option) for no count, or one that is negative or no number.
inline std::vector<double> shares_of(const std::vector<double>& counts) {
  require(!counts.empty(), ErrorCode::option, "shares_of: expected at least 1 count, found 0");
  double sum = 0;
  for (const double count : counts) {
    require(std::isfinite(count) && count >= 0, ErrorCode::option, "shares_of: expected counts of at least 0, found ",
            count);
    sum += count;
  }
  std::vector<double> shares;
  for (const double count : counts) shares.push_back(sum > 0 ? count / sum : 1 / double(counts.size()));
  return shares;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
