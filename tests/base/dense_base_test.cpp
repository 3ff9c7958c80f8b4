// SPDX-License-Identifier: MIT
#include "mole/base/dense_base.hpp"

#include "mole/testing/base_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <Eigen/Core>

using namespace mole;

TEMPLATE_TEST_CASE("DenseBase keeps the laws of bases, borrowing or owning", "[base]", float, double) {
  const auto weight = support::random_matrix<TestType>(9, 5, 1), bias = support::random_matrix<TestType>(1, 9, 2);
  CHECK(laws::broken_base_law(DenseBase(weight.view())) == "");
  CHECK(laws::broken_base_law(DenseBase(weight.view(), bias.view())) == "");
  CHECK(laws::broken_affine_base_law(DenseBase(weight.view(), bias.view())) == "");
  CHECK(laws::broken_affine_base_law(DenseBase(Matrix<TestType>(weight))) == "");
}

TEST_CASE("DenseBase borrows Eigen's memory without copying", "[base]") {
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> weight(3, 2);
  weight << 1, 2, 3, 4, 5, 6;
  const DenseBase base(weight);
  CHECK(base.weight().data() == weight.data());
  CHECK(base.in() == 2);
  CHECK(base.out() == 3);
  STATIC_REQUIRE(std::is_same_v<ParametersOf<decltype(base)>, NoParameters>);
  Matrix<float> x(1, 2);
  x(0, 0) = x(0, 1) = 1;
  CHECK(laws::output_of(base, x)(0, 2) == 11);
  weight(2, 0) = 10;
  CHECK(laws::output_of(base, x)(0, 2) == 16);
}

TEST_CASE("DenseBase that owns its weights can be trained", "[base]") {
  const DenseBase base(support::random_matrix<double>(3, 2, 3), support::random_matrix<double>(1, 3, 4));
  STATIC_REQUIRE(std::is_same_v<ParametersOf<decltype(base)>, LinearParameters<double>>);
  auto gradients = zeros_like(base.parameters());
  laws::Harness harness(base, 2);
  auto call = harness.call();
  Matrix<double> x(2, 2), d_y(2, 3);
  x(0, 0) = 1, x(0, 1) = 2, x(1, 0) = 3, x(1, 1) = 4;
  d_y(0, 0) = 1, d_y(1, 0) = 10, d_y(1, 2) = 100;
  base.backward(x, d_y, View<double>{}, gradients, call);
  CHECK(gradients.weight(0, 0) == 31);
  CHECK(gradients.weight(0, 1) == 42);
  CHECK(gradients.weight(2, 1) == 400);
  CHECK(gradients.weight(1, 0) == 0);
  CHECK(gradients.bias(0, 0) == 11);
  CHECK(gradients.bias(0, 2) == 100);
}

TEST_CASE("DenseBase refuses a bias of another size", "[base]") {
  CHECK_THROWS_AS(DenseBase(Matrix<float>(3, 2), Matrix<float>(1, 2)), Error);
}
