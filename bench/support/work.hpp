// SPDX-License-Identifier: MIT
// What one run has to do at least.
#pragma once

#include <algorithm>

namespace support {

/// Every operand is read once, every result written once.
struct Work {
  double tokens = 0;
  double flops = 0;
  double bytes = 0;

  /// On a machine of so many operations and bytes a second.
  double least_seconds(double peak, double bandwidth) const { return std::max(flops / peak, bytes / bandwidth); }
};

}  // namespace support
