// SPDX-License-Identifier: MIT
#include "mole/method/poly.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("poly serves each token by the mixed adapter of its task, over its rank", "[method]") {
  Rng rng(1);
  auto layer = poly({.tasks = 3, .skills = 2, .rank = 4}, DenseBase{weight, bias}, rng);
  CHECK(layer.experts().scale()[2] == 0.25);
  CHECK(layer.experts().factors().options().skills == 2);
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
  fill_uniform(layer.experts().parameters().skill_logits.view(), 2, rng);
  const std::vector<int> tasks{2, -1, 0, 2, 1};
  const Matrix<double> x = support::random_matrix<double>(5, 11, 3);
  Matrix<double> y(5, 13);
  auto work = layer.workspace(5);
  layer.apply(x, Routing<double>::from_labels(tasks, 3), y, work);
  for (Index n = 0; n < 5; ++n) {
    Matrix<double> merged = weight;
    if (tasks[std::size_t(n)] >= 0) layer.experts().add_delta(tasks[std::size_t(n)], 1, merged.view());
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += merged(o, i) * x(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  }
  CHECK_THROWS_AS(poly({.splits = 2}, DenseBase{weight}, rng), Error);
}
