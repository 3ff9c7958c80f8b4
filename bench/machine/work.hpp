// SPDX-License-Identifier: MIT
// Work: the operations and bytes that one run needs at least.
#pragma once

#include <algorithm>

namespace bench {

/// Every operand is read once, every result written once.
struct Work {
  double tokens = 0;
  double flops = 0;
  double bytes = 0;
  double met_again = 0;  ///< of `bytes`, those met a second time, as results are that are added to

  /// What has to stay in a cache for a run to find it there.
  double footprint() const { return bytes - met_again; }

  /// On a machine of so many operations and bytes a second.
  double least_seconds(double peak, double bandwidth) const { return std::max(flops / peak, bytes / bandwidth); }
};

}  // namespace bench
