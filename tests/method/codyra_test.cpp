// SPDX-License-Identifier: MIT
// The preset is SoRA's composition without a scale; what is its own is what happens at and between tasks.
#include "mole/method/codyra.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge_and_reset.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEMPLATE_TEST_CASE("codyra has scale 1, and its gradients are exact", "[method]", Reference, Simd<>) {
  Rng rng(1);
  const auto layer = codyra({.rank = 5}, DenseBase{weight, bias}, rng, TestType{});
  CHECK(layer.experts().scale()[0] == 1);
  CHECK(codyra({}, DenseBase{weight}, rng).experts().parameters().gate.size() == 16);
  CHECK(gradient_error(layer) < 1e-8);
}

TEST_CASE("At the end of a task the survivors join the weight, and the function stays what it was", "[method]") {
  Rng rng(1);
  Matrix<double> host = weight;
  auto layer = support::with_random_b(codyra({}, DenseBase{host, bias}, rng));
  for (Index j : {0, 3, 4, 9}) layer.experts().parameters().gate(0, j) = 0;
  const auto x = support::random_matrix<double>(5, 11, 2);
  auto work = layer.workspace(5);
  Matrix<double> before(5, 13), after(5, 13);
  layer.forward(x, before, work);
  merge_and_reset(layer, host.view(), rng);
  layer.forward(x, after, work);
  CHECK(support::largest_difference(before, after) < 1e-13);
  const auto b = layer.experts().parameters().lora_B.elements();
  CHECK(std::count(b.begin(), b.end(), 0.0) == 16 * 13);
  CHECK(support::largest_difference(host, weight) > 0.1);
}

TEST_CASE("No gate is 0 before the dense iterations end, and one that is may come back", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(codyra({}, DenseBase{weight}, rng));
  const ThresholdSchedule schedule{.kappa_max = 0.05, .stages = 5, .iterations = 60};
  auto work = layer.workspace(16);
  auto gradients = layer.gradients();
  AdamW<double> adamw({.learning_rate = 5e-2, .beta2 = 0.9999, .weight_decay = 0});
  Matrix<double> x(16, 11), y(16, 13), d_y(16, 13);
  auto& gate = layer.experts().parameters().gate;
  Index zeros = 0;
  for (Index t = 0; t < schedule.iterations; ++t) {
    fill_uniform(x.view(), 1, rng);
    fill_uniform(d_y.view(), 1, rng);
    set_zero(gradients);
    layer.forward(x, y, work);
    layer.backward(x, d_y, {}, gradients, work);
    adamw.step(layer, gradients);
    soft_threshold(gate.elements(), schedule(t), ThresholdMode::dead_zone);
    zeros = std::count(gate.elements().begin(), gate.elements().end(), 0.0);
    if (t <= 30) CHECK(zeros == 0);
  }
  CHECK(zeros > 0);

  gate(0, 2) = 0;  // closed, with a gradient of its own
  set_zero(gradients);
  layer.forward(x, y, work);
  layer.backward(x, d_y, {}, gradients, work);
  CHECK(gradients.experts.gate(0, 2) != 0);
  adamw.step(layer, gradients);
  soft_threshold(gate.elements(), 1e-9, ThresholdMode::dead_zone);
  CHECK(gate(0, 2) != 0);
}
