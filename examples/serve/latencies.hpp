// SPDX-License-Identifier: MIT
// Latencies: how long requests took, in classes of two per cent.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace serve {

/// From 1 us to 1000 s. Constant size, however many requests there are.
class Latencies {
 public:
  void add(double seconds) {
    const double place = std::log(std::max(seconds, least) / least) / width();
    ++counts_[std::min(counts_.size() - 1, std::size_t(place))];
    ++total_;
  }
  std::uint64_t total() const { return total_; }

  /// Seconds that a share of all requests did not exceed, to two per cent; NaN if there were none.
  double percentile(double share) const {
    if (total_ == 0) return std::numeric_limits<double>::quiet_NaN();
    const auto wanted = std::max<std::uint64_t>(1, std::uint64_t(std::ceil(share * double(total_))));
    std::uint64_t sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c)
      if ((sum += counts_[c]) >= wanted) return least * std::exp(width() * double(c + 1));
    return std::numeric_limits<double>::quiet_NaN();
  }

 private:
  static constexpr double least = 1e-6;
  static double width() { return std::log(1.02); }

  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(1050);
  std::uint64_t total_ = 0;
};

}  // namespace serve
