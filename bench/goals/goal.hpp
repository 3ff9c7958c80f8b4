// SPDX-License-Identifier: MIT
// Goal: a figure that the library is meant to reach; goals() is the table of all of them.
#pragma once

#include "bench/goals/measures.hpp"

#include <vector>

namespace bench {

enum class Bound { at_least, at_most };

/// A row of the table: one figure at three widths.
struct Goal {
  static constexpr mole::Index widths[] = {768, 2048, 4096};

  std::string_view text;
  Bound bound;
  Measure measure;
  std::string_view subject;  ///< of the measure
  mole::Index tokens;
  double goal[3];  ///< for each width; 0: none

  bool met(double value, int width) const {
    return bound == Bound::at_least ? value >= goal[width] : value <= goal[width];
  }
};

/// All goals, by rows.
const std::vector<Goal>& goals();

}  // namespace bench
