// SPDX-License-Identifier: MIT
// expect: mole: this matrix is column-major and a View is row-major
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic> column_major(4, 3);
  mole::View<const float> view(column_major);
}
