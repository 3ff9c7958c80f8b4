// SPDX-License-Identifier: MIT
// expect: mole: the numbers of a row of this matrix are not neighbors in memory
#include "parts.hpp"

#include <Eigen/Core>

int main() {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  float numbers[24] = {};
  Eigen::Map<RowMajor, 0, Eigen::Stride<Eigen::Dynamic, 2>> every_second(numbers, 4, 3, {6, 2});
  mole::View<const float> view(every_second);
}
