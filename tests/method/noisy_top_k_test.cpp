// SPDX-License-Identifier: MIT
#include "mole/method/noisy_top_k.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

using namespace mole;
using namespace method_checks;

TEST_CASE("noisy_top_k starts from noise alone in training, and has no noise otherwise", "[method]") {
  Rng rng(1);
  auto layer = noisy_top_k({.experts = 5, .rank = 2, .k = 2}, DenseBase{weight, bias}, rng);
  auto work = layer.workspace(tokens.rows());
  layer.route(tokens, work);
  for (Index n = 0; n < tokens.rows(); ++n) CHECK(work.routing.experts_of(n)[1] == 1);  // all tie
  layer.route(tokens, work, {.training = true, .seed = 2});
  std::vector<Index> loads;
  for (Index e = 0; e < 5; ++e) loads.push_back(work.routing.load(e));
  CHECK(*std::ranges::min_element(loads) > 5);  // of 16 in the mean
  CHECK(std::abs(work.router_scratch.deviation(3, 2) - std::log(2.0)) < 1e-15);
}

TEST_CASE("noisy_top_k mixes the k best of its noisy logits by their softmax", "[method]") {
  Rng rng(1);
  auto layer =
      support::with_random_b(noisy_top_k({.experts = 5, .rank = 2, .k = 2, .alpha = 6}, DenseBase{weight, bias}, rng));
  fill_uniform(layer.router().parameters().router.weight.view(), 1, rng);
  fill_uniform(layer.router().parameters().noise.view(), 1, rng);
  const Pass pass{.training = true, .seed = 5};
  auto work = layer.workspace(tokens.rows());
  Matrix<double> y(tokens.rows(), 13);
  layer.forward(tokens, y, work, pass);
  for (Index n = 0; n < tokens.rows(); ++n) {
    const auto h = std::as_const(work).logits().row(n);
    std::vector<Index> order(5);
    std::iota(order.begin(), order.end(), Index(0));
    std::ranges::sort(order, std::greater(), [&](Index e) { return h[std::size_t(e)]; });
    const double first = 1 / (1 + std::exp(h[std::size_t(order[1])] - h[std::size_t(order[0])]));
    Matrix<double> merged = weight;
    layer.experts().add_delta(order[0], first, merged.view());
    layer.experts().add_delta(order[1], 1 - first, merged.view());
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += merged(o, i) * tokens(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  }
  CHECK(gradient_error(layer) < 1e-7);
}
