// SPDX-License-Identifier: MIT
#include "mole/method/mtl_lora.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("mtl_lora serves each token by its task", "[method]") {
  Rng rng(1);
  auto layer = mtl_lora({.tasks = 3, .rank = 2, .alpha = 6}, DenseBase{weight, bias}, rng);
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
  fill_uniform(layer.experts().parameters().lora_lambda.view(), 1, rng);
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
  CHECK(layer.experts().scale()[2] == 3);
  CHECK(test::code_of([&] { Routing<double>::from_labels(std::vector<int>{3}, 3); }) == ErrorCode::option);
}
