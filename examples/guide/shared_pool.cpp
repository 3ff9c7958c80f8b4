// SPDX-License-Identifier: MIT
// Two layers whose LoRA is put together from one pool of shards (MoS): the pool is trained, once.
#include <mole/mole.hpp>

#include <cstdio>
#include <memory>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(8, 8), x(16, 8), wanted(16, 8), h(16, 8), y(16, 8), d_y(16, 8), d_h(16, 8);
  for (auto* matrix : {&weights, &x, &wanted}) fill_uniform(matrix->view(), 1, rng);

  using Pool = mole::ShardPool<float>;
  const auto pool = std::make_shared<Pool>(
      Pool::Options{.in = 8, .out = 8, .layers = 2, .pool_rank = 2, .rank = 3, .shards = 2}, rng);
  const auto first = mole::mos({.layer = 0, .dropout = 0}, pool, mole::DenseBase{weights}, rng);
  const auto second = mole::mos({.layer = 1, .dropout = 0}, pool, mole::DenseBase{weights}, rng);
  auto first_work = first.workspace(16), second_work = second.workspace(16);
  auto gradients = first.gradients(), second_gradients = second.gradients();

  auto pool_gradients = pool->gradients();
  gradients.experts.pool = &pool_gradients;  // null, as gradients() makes it: the pool is frozen
  second_gradients.experts.pool = &pool_gradients;

  mole::AdamW<float> optimizer({.learning_rate = 0.02});
  double before = 0, loss = 0;
  for (int step = 0; step < 200; ++step) {
    set_zero(pool_gradients);
    first.forward(x, h, first_work);
    second.forward(h, y, second_work);
    loss = 0;
    for (mole::Index i = 0; i < y.size(); ++i) {
      const float error = y.data()[i] - wanted.data()[i];
      loss += double(error * error) / double(y.size());
      d_y.data()[i] = 2 * error / float(y.size());
    }
    d_h.set_zero();
    second.backward(h, d_y, d_h, second_gradients, second_work);
    first.backward(x, d_h, {}, gradients, first_work);
    optimizer.step(*pool, pool_gradients);
    if (step == 0) before = loss;
  }
  std::printf("loss %.3f, then %.3f, of %td numbers for both layers\n", before, loss,
              pool->parameters().pool_A.size() + pool->parameters().pool_B.size());
  return loss < before / 2 ? 0 : 1;
}
