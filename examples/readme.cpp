// SPDX-License-Identifier: MIT
// The program of the README: a frozen linear layer learns to double its output, through eight small experts.
#include <mole/mole.hpp>

#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(64, 64), x(512, 64), y(512, 64), goal(512, 64), d_y(512, 64);
  for (auto* matrix : {&weights, &x}) fill_uniform(matrix->view(), 1, rng);
  mole::Simd<>{}.product_nt(x, weights, goal.view());  // what the frozen layer gives today

  auto layer = mole::mola({.experts = 8, .rank = 16, .k = 2}, mole::DenseBase{weights}, rng);
  auto work = layer.workspace(/*max_tokens=*/512);
  auto gradients = layer.gradients();
  mole::AdamW adamw({.learning_rate = 1e-2, .weight_decay = 0});

  for (int step = 0; step <= 200; ++step) {
    set_zero(gradients);
    layer.forward(x, y, work, {.training = true, .step = std::uint64_t(step)});
    double loss = mole::load_balance(work, {.coefficient = 0.01}) - 0.01, size = double(y.size());
    for (std::size_t i = 0; i < y.elements().size(); ++i) {
      const float error = y.elements()[i] - 2 * goal.elements()[i];
      loss += error * error / size;
      d_y.elements()[i] = float(2 * error / size);
    }
    layer.backward(x, d_y, {}, gradients, work);
    adamw.step(layer, gradients);
    if (step % 50 == 0) std::printf("step %3d  loss %.4f\n", step, loss);
  }
}
