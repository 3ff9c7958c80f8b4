// SPDX-License-Identifier: MIT
// expect: deleted
#include "parts.hpp"

#include <Eigen/Core>

Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> load_weight();

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weight(4, 4);
  auto layer = mole::oft({.block = 2}, load_weight(), mole::DenseBase(weight), rng);
}
