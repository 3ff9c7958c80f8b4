// SPDX-License-Identifier: MIT
#include "mole/method/arrow.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

using namespace mole;
using namespace method_checks;

namespace {

LowRank<DenseFactors<double>> trained_adapters() {
  Rng rng(4);
  LowRank<DenseFactors<double>> experts({.in = 11, .out = 13, .experts = 4, .ranks = {3, 2, 3, 1}, .alpha = 6}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  experts.scale()[2] = 0.5;
  return experts;
}

}  // namespace

TEST_CASE("arrow mixes the adapters whose directions a token is nearest to, whatever its sign", "[method]") {
  const auto experts = trained_adapters();
  const auto layer = arrow({.k = 2, .temperature = 0.5}, experts, DenseBase{weight, bias});
  const Matrix<double> v = arrow_prototypes(experts), y = support::output(layer, tokens);
  for (Index n = 0; n < tokens.rows(); ++n) {
    std::vector<double> similarity(4);
    for (Index e = 0; e < 4; ++e) {
      for (Index i = 0; i < 11; ++i) similarity[std::size_t(e)] += v(e, i) * tokens(n, i);
      similarity[std::size_t(e)] = std::abs(similarity[std::size_t(e)]);
    }
    std::vector<Index> order(4);
    std::iota(order.begin(), order.end(), Index(0));
    std::ranges::sort(order, std::greater(), [&](Index e) { return similarity[std::size_t(e)]; });
    double sum = 0;
    for (std::size_t j = 0; j < 2; ++j) sum += std::exp(similarity[std::size_t(order[j])] / 0.5);
    Matrix<double> merged = weight;
    for (std::size_t j = 0; j < 2; ++j)
      experts.add_delta(order[j], std::exp(similarity[std::size_t(order[j])] / 0.5) / sum, merged.view());
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += merged(o, i) * tokens(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  }

  Matrix<double> opposite = tokens;
  for (double& number : opposite.elements()) number = -number;
  auto work = layer.workspace(tokens.rows()), of_opposite = layer.workspace(tokens.rows());
  layer.route(tokens, work);
  layer.route(opposite, of_opposite);
  CHECK(support::same_bits(work.scores(), of_opposite.scores()));
}

TEST_CASE("arrow's experts train behind a router that stays", "[method]") {
  auto layer = arrow({.k = 2}, trained_adapters(), DenseBase{weight, bias});
  CHECK(gradient_error(layer) < 1e-8);
  auto gradients = layer.gradients({.router = false});
  CHECK_FALSE(any_wanted(gradients.router));
  const auto d_y = support::random_matrix<double>(tokens.rows(), 13, 9);
  Matrix<double> y(tokens.rows(), 13), d_x(tokens.rows(), 11);
  auto work = layer.workspace(tokens.rows());
  layer.forward(tokens, y, work);
  layer.backward(tokens, d_y, d_x, gradients, work);
  CHECK_FALSE(any_wanted(gradients.router));
}

TEST_CASE("arrow keeps scales and ranks of the adapters, and has peft's defaults", "[method]") {
  const auto layer = arrow({}, trained_adapters(), DenseBase{weight});
  CHECK(layer.gating().select.k == 3);
  CHECK(layer.gating().weigh.temperature == 1);
  CHECK(layer.experts().scale()[0] == 2);
  CHECK(layer.experts().scale()[2] == 0.5);
  CHECK_THROWS_AS(arrow({.k = 5}, trained_adapters(), DenseBase{weight}), Error);
}
