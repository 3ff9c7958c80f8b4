// SPDX-License-Identifier: MIT
// A training loop: schedule, clipping, and B at another rate than A.
#include <mole/mole.hpp>

#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(16, 16), x(32, 16), y(32, 16), d_y(32, 16);
  for (auto* matrix : {&weights, &x}) fill_uniform(matrix->view(), 1, rng);
  auto layer = mole::mola({.experts = 4, .k = 2}, mole::DenseBase{weights}, rng);
  auto work = layer.workspace(32);
  auto gradients = layer.gradients();

  const mole::CosineSchedule rate{.peak = 1e-2, .warmup_steps = 5, .total_steps = 50};
  mole::AdamW adamw({.weight_decay = 0.01, .groups = {{.contains = "lora_B", .learning_rate_scale = 4}}});
  for (int step = 0; step < 50; ++step) {
    set_zero(gradients);
    layer.forward(x, y, work, {.training = true, .step = std::uint64_t(step)});
    double loss = 0;
    for (std::size_t i = 0; i < y.elements().size(); ++i) {  // |y|^2 / 2 of each token
      d_y.elements()[i] = y.elements()[i] / 32;
      loss += double(y.elements()[i] * y.elements()[i]) / 64;
    }
    layer.backward(x, d_y, {}, gradients, work);
    mole::clip_norm(layer, gradients, 1.0);
    adamw.set_learning_rate(rate(step));
    adamw.step(layer, gradients);
    if (step % 10 == 0) std::printf("step %2d  loss %.3f\n", step, loss);
  }
}
