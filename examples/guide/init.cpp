// SPDX-License-Identifier: MIT
// A LoRA starts from the leading directions of its weight, and the base from what is left.
#include <mole/mole.hpp>

#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weight(16, 12), x(3, 12), y(3, 16), expected(3, 16);
  for (auto* matrix : {&weight, &x}) fill_uniform(matrix->view(), 1, rng);

  mole::Matrix<float> residual(16, 12);
  auto layer = mole::lora({.rank = 4}, mole::DenseBase{residual}, rng);
  mole::pissa_init(layer.experts(), weight, residual.view());

  auto work = layer.workspace(3);
  layer.forward(x, y, work);
  mole::Simd<>{}.product_nt(x, weight, expected.view());
  std::printf("y: %.4f; of the whole weight: %.4f\n", y(0, 0), expected(0, 0));
}
