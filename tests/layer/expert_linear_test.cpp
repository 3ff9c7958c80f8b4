// SPDX-License-Identifier: MIT
// A routing that the layer did not choose: from outside, or from another layer.
#include "mole/layer/mixture_linear.hpp"

#include "mole/optim/adamw.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;

TEST_CASE("A routing from outside returns the gradient of its gates", "[layer]") {
  Rng rng(5);
  auto layer = support::with_random_b(
      ExpertLinear(LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 4, .rank = 3, .alpha = 6}, rng),
                   DenseBase(random_matrix<double>(13, 11, 6))));
  Matrix<double> weights = random_matrix<double>(7, 4, 1);
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13), d_x(7, 11);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  const auto routing = Routing<double>::from_dense(weights);
  std::vector<double> d_gate(std::size_t(routing.pairs()), 1.0);  // accumulated
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, d_gate, d_x, gradients, work);
  const auto value = [&] {
    layer.apply(x, Routing<double>::from_dense(weights), y, work);
    double sum = 0;
    for (std::size_t i = 0; i < y.elements().size(); ++i) sum += y.elements()[i] * d_y.elements()[i];
    return sum;
  };
  for (std::size_t p = 0; p < d_gate.size(); ++p) {
    double& weight = weights.elements()[p];
    const double before = weight;
    weight = before + 1e-6;
    const double above = value();
    weight = before - 1e-6;
    const double below = value();
    weight = before;
    CHECK(std::abs((above - below) / 2e-6 - (d_gate[p] - 1)) < 1e-7);
  }
}

TEST_CASE("One routing serves two layers, whose gate gradients add up", "[layer]") {
  auto q = support::routed_layer<double>({}, support::top_2());
  const auto k = support::with_random_b(q, 99);
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13);
  auto work = q.workspace(7), work_k = k.workspace(7), work_alone = k.workspace(7);
  auto gradients = q.gradients(), gradients_k = k.gradients();
  q.route(x, work);
  q.apply(x, work.routing, y, work);
  k.apply(x, work.routing, y, work_k);
  q.apply_backward(x, work.routing, d_y, work.d_gate(), View<double>{}, gradients, work);
  std::vector<double> of_q(work.d_gate().begin(), work.d_gate().end()), of_k(of_q.size());
  k.apply(x, work.routing, y, work_alone);
  k.apply_backward(x, work.routing, d_y, of_k, View<double>{}, gradients_k, work_alone);
  k.apply_backward(x, work.routing, d_y, work.d_gate(), View<double>{}, gradients_k, work_k);
  for (std::size_t p = 0; p < of_q.size(); ++p) CHECK(std::abs(work.d_gate()[p] - of_q[p] - of_k[p]) < 1e-12);
}

TEST_CASE("Layers behind names of their own share one optimizer", "[layer]") {
  auto q = support::routed_layer<double>({}, support::top_2());
  ExpertLinear k(q.experts(), q.base());
  auto q_gradients = q.gradients();
  auto k_gradients = k.gradients();
  fill(k_gradients.experts.lora_A.view(), 1);
  std::vector<std::string> names;
  const auto walk = [&](auto&& f) {
    for_each_tensor_within("q", q, f, q_gradients);
    for_each_tensor_within("k", k, f, k_gradients);
  };
  walk([&](std::string_view name, View<double>, View<double>) { names.emplace_back(name); });
  CHECK(names == std::vector<std::string>{"q.router.weight", "q.experts.lora_A", "q.experts.lora_B", "q.base.weight",
                                          "k.experts.lora_A", "k.experts.lora_B", "k.base.weight"});
  const Matrix<double> before = k.experts().parameters().lora_A;
  AdamW<double> adamw({.learning_rate = 0.1, .weight_decay = 0});
  adamw.step(walk);
  CHECK(std::abs(before(0, 0) - k.experts().parameters().lora_A(0, 0) - 0.1) < 1e-6);
  CHECK(support::same_bits(q.experts().parameters().lora_A, before));  // its gradient was zero
}
