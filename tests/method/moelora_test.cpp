// SPDX-License-Identifier: MIT
#include "mole/method/moelora.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("moelora mixes its experts by the task, with the scale of all ranks", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(
      moelora({.experts = 4, .tasks = 3, .task_width = 5, .total_rank = 8, .alpha = 12}, DenseBase{weight, bias}, rng));
  CHECK(layer.experts().blocks().size(3) == 2);
  CHECK(layer.experts().scale()[1] == 1.5);
  std::vector<int> tasks;
  for (Index n = 0; n < tokens.rows(); ++n) tasks.push_back(int(n * n % 3));
  const Matrix<double> y = support::output(layer, tokens, {.labels = tasks});
  const auto& parameters = layer.router().parameters();
  for (Index n = 0; n < tokens.rows(); ++n) {
    double p[4], sum = 0;
    for (Index e = 0; e < 4; ++e) {
      double logit = 0;
      for (Index d = 0; d < 5; ++d)
        logit += parameters.router.weight(e, d) * parameters.embedding(tasks[std::size_t(n)], d);
      sum += p[e] = std::exp(logit);
    }
    Matrix<double> merged = weight;
    for (Index e = 0; e < 4; ++e) layer.experts().add_delta(e, p[e] / sum, merged.view());
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += merged(o, i) * tokens(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  }
}

TEST_CASE("moelora of one task needs no labels, and refuses ranks that experts do not divide", "[method]") {
  Rng rng(1);
  CHECK(gradient_error(moelora({.experts = 2, .tasks = 1, .task_width = 3, .total_rank = 4}, DenseBase{weight}, rng)) <
        1e-7);
  CHECK_THROWS_AS(moelora({.experts = 3, .total_rank = 8}, DenseBase{weight}, rng), Error);
}
