// SPDX-License-Identifier: MIT
// Result: one layer's forward and backward, computed in a translation unit with its own flags.
#pragma once

#include <string>
#include <vector>

namespace two_units {

/// y, d_x and all gradients of one fixed layer, one after the other, and the instruction set that made them.
struct Result {
  std::string arch;
  std::vector<float> numbers;
};

Result run_baseline();
Result run_wide();

}  // namespace two_units
