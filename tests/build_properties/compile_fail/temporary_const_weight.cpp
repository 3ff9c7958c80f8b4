// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

#include <Eigen/Core>

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  const RowMajor half(4, 3);
  mole::DenseBase base((2 * half).eval());  // a const temporary
}
