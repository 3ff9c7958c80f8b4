// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

#include <Eigen/Core>

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
RowMajor load_weight();

int main() {
  mole::DenseBase base(load_weight());
}
