// SPDX-License-Identifier: MIT
// expect: mole: the transpose of a column-major matrix as a weight
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic> column_major(4, 4);
  mole::DenseBase base(column_major.transpose());
}
