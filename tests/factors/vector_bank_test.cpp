// SPDX-License-Identifier: MIT
#include "mole/factors/vector_bank.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <cmath>

using namespace mole;

TEST_CASE("A bank starts uniform, and is walked as a layer is, with its gradients", "[factors]") {
  Rng rng(1);
  VectorBank<double> bank({.vectors = 500, .length = 20, .bound = 0.02}, rng);
  double most = 0, sum = 0;
  for (double v : bank.parameters().vectors.elements()) most = std::max(most, std::abs(v)), sum += v;
  CHECK(most <= 0.02);
  CHECK(most > 0.01999);
  CHECK(std::abs(sum / 1e4) < 0.001);
  auto gradients = bank.gradients();
  int visited = 0;
  bank.for_each_tensor(
      [&](std::string_view name, View<double> parameter, View<double> gradient) {
        ++visited;
        CHECK(name == "vectors");
        CHECK(parameter.rows() == 500);
        CHECK(gradient.cols() == 20);
      },
      gradients);
  CHECK(visited == 1);
  for (double d : gradients.vectors.elements()) CHECK(d == 0);
}

TEST_CASE("A bank refuses sizes that cannot be, and gradients of another", "[factors]") {
  Rng rng;
  CHECK(test::code_of([&] { VectorBank<double>({.vectors = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { VectorBank<double>({.length = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { VectorBank<double>({.bound = std::nan("")}, rng); }) == ErrorCode::option);
  VectorBank<double> bank({.vectors = 3, .length = 4}, rng);
  CHECK_NOTHROW(bank.check_gradients(bank.gradients(), "a layer"));
  CHECK_NOTHROW(bank.check_gradients({}, "a layer"));  // frozen
  CHECK(test::text_of([&] { bank.check_gradients({Matrix<double>(4, 3)}, "a layer"); }) ==
        "a layer: expected gradients of the bank [3 x 4], found [4 x 3]");
  bank.parameters().vectors = Matrix<double>(4, 3);
  CHECK(test::code_of([&] { bank.check_sizes(); }) == ErrorCode::shape);
}
