// SPDX-License-Identifier: MIT
// expect: mole: the transpose of a column-major matrix as a weight
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  Eigen::MatrixXf column_major(4, 4);
  mole::Int8RowBase base(column_major.transpose());
}
