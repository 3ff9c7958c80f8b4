// SPDX-License-Identifier: MIT
// expect: mole: the transpose of a column-major matrix as a weight
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  Eigen::MatrixXf column_major(8, 8);
  mole::DenseBase base(column_major.transpose().block(0, 0, 4, 4));
}
