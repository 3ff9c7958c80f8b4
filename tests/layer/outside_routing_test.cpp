// SPDX-License-Identifier: MIT
// A routing that the layer did not choose: from outside, or from another layer.
#include "mole/layer/mixture_linear.hpp"

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
