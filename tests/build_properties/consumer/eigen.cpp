// SPDX-License-Identifier: MIT
// Products through Eigen, on a host's own Eigen matrices, in a project of its own.
#include <mole/core/matrix.hpp>
#include <mole/execution/reference.hpp>
#include <mole/execution/through_eigen.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>

int main() {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const RowMajor x = RowMajor::Random(5, 7), weight = RowMajor::Random(6, 7);
  mole::Matrix<float> y(5, 6), expected(5, 6);
  mole::ThroughEigen{}.product_nt<float>(x, weight, y.view());
  mole::Reference{}.product_nt<float>(x, weight, expected.view());

  float largest = 0;
  for (mole::Index n = 0; n < y.rows(); ++n)
    for (mole::Index o = 0; o < y.cols(); ++o) largest = std::fmax(largest, std::fabs(y(n, o) - expected(n, o)));
  std::printf("largest difference %g\n", double(largest));
  return largest < 1e-5f ? 0 : 1;
}
