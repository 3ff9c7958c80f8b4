// SPDX-License-Identifier: MIT
// One routing for q and k, and one optimizer for both layers.
#include <mole/mole.hpp>

#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> w_q(32, 16), w_k(32, 16), x(8, 16), q(8, 32), k(8, 32);
  for (auto* matrix : {&w_q, &w_k, &x}) fill_uniform(matrix->view(), 1, rng);

  auto q_layer = mole::mola({.experts = 4, .k = 2}, mole::DenseBase{w_q}, rng);
  mole::ExpertLinear k_layer{mole::LowRank<mole::DenseFactors<float>>{{.in = 16, .out = 32, .experts = 4}, rng},
                             mole::DenseBase{w_k}};
  auto q_work = q_layer.workspace(8);
  auto k_work = k_layer.workspace(8);
  auto q_gradients = q_layer.gradients();
  auto k_gradients = k_layer.gradients();

  q_layer.forward(x, q, q_work);
  k_layer.apply(x, q_work.routing, k, k_work);  // q's experts, and q's gates

  const mole::Matrix<float>&d_q = q, &d_k = k;  // of the loss (|q|^2 + |k|^2) / 2
  k_layer.apply_backward(x, q_work.routing, d_k, q_work.d_gate(), {}, k_gradients, k_work);
  q_layer.backward(x, d_q, {}, q_gradients, q_work);  // d_gate of both layers reaches the router

  mole::AdamW adamw({.learning_rate = 1e-3});
  adamw.step([&](auto&& f) {  // names: q.router.weight, q.experts.lora_A ... k.experts.lora_B
    for_each_tensor_within("q", q_layer, f, q_gradients);
    for_each_tensor_within("k", k_layer, f, k_gradients);
  });
  std::printf("token 0: experts %d and %d\n", q_work.routing.experts_of(0)[0], q_work.routing.experts_of(0)[1]);
}
