// SPDX-License-Identifier: MIT
// Vectors as directions: what cosines are made of.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace mole {

/// How a vector v becomes a direction u = scale() v = v / max(||v||, 1e-12), and how a gradient of u becomes one of v:
///
///   d_v = d_scale() (d_u - inward(<u, d_u>) u)
///
/// A vector of zeros has no direction: u is 0, and v gets no gradient. Torch's normalize, whose bound this is, hands
/// back d_u / 1e-12 there.  O(size of v), in double, no allocation.
struct Direction {
  static constexpr double least = 1e-12;
  double length = 0;  ///< ||v||

  template <class T>
  static Direction of(std::span<const T> v) {
    double square = 0;
    for (T element : v) square += double(element) * double(element);
    return {std::sqrt(square)};
  }

  double scale() const { return 1 / std::max(length, least); }
  double d_scale() const { return length > 0 ? scale() : 0; }
  /// What of `radial` = <u, d_u> has to go: all of it, as u keeps its length, but for a v too short to have that of 1.
  double inward(double radial) const { return length > least ? radial : 0; }
};

}  // namespace mole
