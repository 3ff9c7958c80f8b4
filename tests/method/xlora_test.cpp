// SPDX-License-Identifier: MIT
#include "mole/method/xlora.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <functional>

using namespace mole;
using namespace method_checks;

namespace {

constexpr Index xlora_layers = 2, xlora_experts = 5;

auto hidden_states() {
  return support::random_matrix<double>(tokens.rows(), 9, 4);
}

}  // namespace

TEST_CASE("The gates of xlora are shares of the best adapters, not renormalized, for each token and layer",
          "[method]") {
  Rng rng(1);
  const auto routing = xlora<double>({.hidden = 9,
                                      .layers = xlora_layers,
                                      .experts = xlora_experts,
                                      .depth = 2,
                                      .width = 6,
                                      .temperature = 0.5,
                                      .k = 2,
                                      .global_scaling_weight = 3},
                                     rng);
  const auto h = hidden_states();
  auto work = routing.workspace(h.rows());
  routing.route(h, work);
  const auto& maps = routing.router().parameters().layers;
  for (Index n = 0; n < h.rows(); ++n)
    for (Index m = 0; m < xlora_layers; ++m) {
      std::vector<double> shares(xlora_experts);
      double sum = 0;
      for (Index e = 0; e < xlora_experts; ++e) {
        const Index row = m * xlora_experts + e;
        double logit = maps[1].bias(0, row);
        for (Index j = 0; j < 6; ++j) {
          double unit = maps[0].bias(0, j);
          for (Index i = 0; i < 9; ++i) unit += maps[0].weight(j, i) * h(n, i);
          logit += maps[1].weight(row, j) * std::max(unit, 0.0);
        }
        sum += shares[std::size_t(e)] = std::exp(logit / 0.5);
      }
      const auto experts = work.routing(m).experts_of(n);
      const auto gates = work.routing(m).gates_of(n);
      REQUIRE(experts.size() == 2);
      for (std::size_t j = 0; j < 2; ++j) CHECK(std::abs(gates[j] - 3 * shares[std::size_t(experts[j])] / sum) < 1e-13);
      std::ranges::sort(shares, std::greater());
      CHECK(gates[0] + gates[1] < 3);
      CHECK(std::abs(gates[0] - 3 * shares[0] / sum) < 1e-13);
    }
}

TEST_CASE("Equal adapters under xlora are one of them, and a routing without pairs is the base", "[method]") {
  Rng rng(1);
  LowRank<DenseFactors<double>> experts({.in = 11, .out = 13, .experts = xlora_experts, .rank = 2}, rng);
  auto& parameters = experts.parameters();
  fill_uniform(parameters.lora_B.view(), 1, rng);
  for (Index j = 2; j < 2 * xlora_experts; ++j) {
    std::ranges::copy(parameters.lora_A.view().row(j % 2), parameters.lora_A.view().row_data(j));
    std::ranges::copy(parameters.lora_B.view().row(j % 2), parameters.lora_B.view().row_data(j));
  }
  const auto routing = xlora<double>({.hidden = 9, .layers = xlora_layers, .experts = xlora_experts}, rng);
  const auto h = hidden_states();
  auto work = routing.workspace(h.rows());
  routing.route(h, work);
  const ExpertLinear layer(experts, DenseBase{weight, bias});
  auto layer_work = layer.workspace(h.rows(), work.routing(1).pairs());
  Matrix<double> y(h.rows(), 13), one(h.rows(), 13), base(h.rows(), 13), alone(h.rows(), 13);
  layer.apply(tokens, work.routing(1), y, layer_work);
  layer.apply(tokens, Routing<double>::from_labels(std::vector<int>(std::size_t(h.rows()), 3), xlora_experts), one,
              layer_work);
  CHECK(support::largest_difference(y, one) < 1e-13);

  layer.apply(tokens, Routing<double>::from_dense(Matrix<double>(h.rows(), xlora_experts)), base, layer_work);
  Simd<>{}.linear(tokens, DenseBase{weight, bias}.weights(), alone.view());
  CHECK(support::same_bits(base, alone));
}

TEST_CASE("A softmax of the kept logits of one token does not know the other tokens", "[method]") {
  Rng rng(1);
  const auto published = xlora<double>({.hidden = 9, .layers = 2, .experts = 5, .k = 3}, rng);
  const ModelRouting routing(published.router(), Gate{Identity{}, TopK{.k = 3}, SoftmaxOverChosen{}},
                             published.options());
  auto h = hidden_states();
  auto work = routing.workspace(h.rows()), changed = routing.workspace(h.rows());
  routing.route(h, work);
  for (double& number : h.view().row(0)) number = -number;
  routing.route(h, changed);
  for (Index n = 1; n < h.rows(); ++n) {
    double sum = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      sum += work.routing(1).gates_of(n)[j];
      CHECK(work.routing(1).gates_of(n)[j] == changed.routing(1).gates_of(n)[j]);
    }
    CHECK(std::abs(sum - 1) < 1e-14);
  }
}

TEST_CASE("xlora refuses a depth that it has not, and no adapters", "[method]") {
  Rng rng(1);
  CHECK_THROWS_AS(xlora<double>({.hidden = 9, .experts = 3, .depth = 0}, rng), Error);
  CHECK_THROWS_AS(xlora<double>({.hidden = 9, .experts = 3, .depth = 9}, rng), Error);
  CHECK_THROWS_AS(xlora<double>({.hidden = 9}, rng), Error);
}
