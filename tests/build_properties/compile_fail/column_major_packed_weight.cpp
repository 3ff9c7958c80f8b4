// SPDX-License-Identifier: MIT
// expect: row-major
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  Eigen::MatrixXf column_major(4, 4);
  mole::PackedBase base(column_major);
}
