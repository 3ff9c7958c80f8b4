// SPDX-License-Identifier: MIT
// Mix, Traffic: which adapter the next request wants.
#pragma once

#include <mole/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

namespace serve {

enum class Mix {
  skewed,   // by Zipf's law: adapter k as often as 1 / (k + 1)
  spread,   // all alike
  hot_set,  // nine in ten requests go to 8 adapters, which are others every half second
};
inline constexpr std::array<std::string_view, 3> mix_names{"skewed", "spread", "hot-set"};

inline std::string_view name_of(Mix mix) {
  return mix_names[std::size_t(mix)];
}

/// The requests of one client. One in 16 is for the base alone, and one in 64 for a guest, an adapter that comes and
/// goes.
class Traffic {
 public:
  Traffic(Mix mix, int adapters, std::uint64_t seed) : mix_(mix), adapters_(adapters), rng_(seed) {
    double sum = 0;
    for (int k = 0; k < adapters; ++k) shares_.push_back(sum += 1.0 / (k + 1));
  }

  /// The id of an adapter, or -1; `adapters` is the guest's.
  int draw(double seconds) {
    const double kind = uniform();
    if (kind < 1.0 / 16) return -1;
    if (kind < 5.0 / 64) return adapters_;
    if (mix_ == Mix::skewed)
      return int(std::upper_bound(shares_.begin(), shares_.end() - 1, uniform() * shares_.back()) - shares_.begin());
    if (mix_ == Mix::hot_set && uniform() < 0.9)
      return (int(seconds * 2) * 8 + int(uniform() * std::min(8, adapters_))) % adapters_;
    return std::min(adapters_ - 1, int(uniform() * adapters_));
  }
  /// Seconds until the next request, of `rate` a second.
  double pause(double rate) { return -std::log(1 - uniform()) / rate; }

 private:
  double uniform() { return mole::unit_interval(rng_()); }

  Mix mix_;
  int adapters_;
  mole::Rng rng_;
  std::vector<double> shares_;  // adding up
};

}  // namespace serve
