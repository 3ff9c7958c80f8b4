// SPDX-License-Identifier: MIT
// A routing that the layer did not choose: from outside, or from another layer.
#include "mole/layer/mixture_linear.hpp"

#include "core/error_code.hpp"
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

TEST_CASE("The halves of a layer are its forward and backward, also after its parts were touched", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  const auto x = random_matrix<float>(40, 11, 1), d_y = random_matrix<float>(40, 13, 2);
  for (bool touched : {false, true}) {
    layer = decltype(layer)(layer.router(), layer.gating(), layer.experts(), layer.base(), Simd<>{});
    if (touched) layer.experts();
    auto work = layer.workspace(40), halves = layer.workspace(40);
    Matrix<float> y(40, 13), d_x(40, 11), y_of_halves(40, 13), d_x_of_halves(40, 11), scores(40, 4);
    auto gradients = layer.gradients(), of_halves = layer.gradients();
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    layer.route(x, halves);
    copy(halves.scores(), scores.view());
    layer.apply(x, halves.routing, y_of_halves, halves);
    CAPTURE(touched);
    REQUIRE(support::same_bits(halves.scores(), scores.view()));
    CHECK(support::same_bits(y, y_of_halves));
    layer.apply_backward(x, halves.routing, d_y, halves.d_gate(), d_x_of_halves, of_halves, halves);
    layer.route_backward(x, d_x_of_halves, of_halves, halves);
    CHECK(support::largest_difference(d_x, d_x_of_halves) < 1e-5);
    CHECK(support::largest_difference(gradients.router.weight, of_halves.router.weight) < 1e-5);
    CHECK(support::largest_difference(gradients.experts.lora_A, of_halves.experts.lora_A) < 1e-5);
    CHECK(support::largest_difference(gradients.experts.lora_B, of_halves.experts.lora_B) < 1e-5);
  }
}

TEST_CASE("A layer without a router does not take the workspace that holds a routing", "[layer]") {
  auto q = support::routed_layer<double>({}, support::top_2());
  const ExpertLinear k(q.experts(), q.base(), q.execution());
  const auto x = random_matrix<double>(7, 11, 8);
  Matrix<double> y(7, 13);
  auto work = q.workspace(7);
  q.route(x, work);
  CHECK(test::code_of([&] { k.apply(x, work.routing, y, work); }) == ErrorCode::order);
  auto own = k.workspace(7);
  k.apply(x, work.routing, y, own);
  Matrix<double> expected(7, 13);
  q.apply(x, work.routing, expected, work);
  CHECK(support::same_bits(y, expected));
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

TEST_CASE("A routing from outside is applied with the pass of its call, and a pass that does not fit is refused",
          "[layer]") {
  const auto q = support::routed_layer<float>({.dropout = 0.5}, support::top_2());
  const ExpertLinear k(q.experts(), q.base(), q.execution());
  const auto x = random_matrix<float>(7, 11, 8);
  const Pass pass{.training = true, .seed = 3};
  Matrix<float> expected(7, 13), y(7, 13);
  auto work = q.workspace(7);
  auto own = k.workspace(7);
  q.forward(x, expected, work, pass);
  k.apply(x, work.routing, y, own, pass);
  CHECK(support::same_bits(y, expected));
  const std::vector<std::uint8_t> flags(6, 1);
  CHECK(test::code_of([&] { k.apply(x, work.routing, y, own, {.token_mask = flags}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { k.apply(x, work.routing, y, own, {.routed = flags}); }) == ErrorCode::shape);
}
