// SPDX-License-Identifier: MIT
// Matrices of random numbers, and comparisons of matrices, under the names that tests use.
#pragma once

#include "mole/testing/random_matrix.hpp"

namespace support {

using mole::laws::all_finite;
using mole::laws::largest_difference;
using mole::laws::permuted;
using mole::laws::random_matrix;
using mole::laws::reversed;
using mole::laws::same_bits;

}  // namespace support
