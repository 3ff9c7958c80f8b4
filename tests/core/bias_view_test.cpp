// SPDX-License-Identifier: MIT
#include "mole/core/bias_view.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"

#include <Eigen/Core>

#include <array>
#include <vector>

using namespace mole;
using test::code_of;

TEST_CASE("Every base takes a bias from whatever has its numbers side by side", "[core]") {
  const Matrix<float> weight(3, 2);
  const std::vector<float> vector{1, 2, 3};
  const std::array<float, 3> array{1, 2, 3};
  Matrix<float> row(1, 3);
  Eigen::VectorXf eigen(3);
  for (Index o = 0; o < 3; ++o) row(0, o) = eigen[o] = float(o + 1);

  const auto check = [](const auto& base) {
    Matrix<float> y(1, 3);
    const Pass pass;
    const Reference reference;
    NoScratch none;
    base.forward(Matrix<float>(1, 2), y.view(), Call{reference, pass, none});
    CHECK((y(0, 0) == 1 && y(0, 1) == 2 && y(0, 2) == 3));
  };
  const auto check_bases = [&](const auto& bias) {
    check(DenseBase{weight, bias});
    check(DenseBase{Matrix<float>(3, 2), bias});
    check(PackedBase{weight, bias});
    check(Bf16Base{weight.view(), bias});
    check(Int8RowBase{weight.view(), bias});
    check(Nf4Base{weight.view(), bias});
  };
  check_bases(vector);
  check_bases(array);
  check_bases(std::span<const float>(vector));
  check_bases(row);
  check_bases(row.view());
  check_bases(eigen);
  check_bases(eigen.transpose());
  check_bases(Eigen::Map<const Eigen::VectorXf>(vector.data(), 3));
  Eigen::MatrixXf columns(3, 4);
  columns.col(2) = eigen;
  check_bases(columns.col(2));
  check_bases(columns.block(0, 2, 3, 1));
  check_bases(Eigen::Ref<const Eigen::VectorXf>(columns.col(2)));
  Matrix<float> upright(3, 1);
  for (Index o = 0; o < 3; ++o) upright(o, 0) = float(o + 1);
  check_bases(upright);
}

TEST_CASE("A bias of another size, of several rows or with gaps is refused", "[core]") {
  const Matrix<float> weight(3, 2), wide(3, 3);
  const std::vector<float> two(2);
  CHECK(code_of([&] { DenseBase(weight, two); }) == ErrorCode::shape);
  CHECK(code_of([&] { PackedBase(weight, two); }) == ErrorCode::shape);
  CHECK(code_of([&] { Int8RowBase(weight.view(), two); }) == ErrorCode::shape);
  CHECK(code_of([&] { DenseBase(weight, wide.view().middle_cols(1, 1)); }) == ErrorCode::shape);
  CHECK(code_of([&] { DenseBase(weight, wide); }) == ErrorCode::shape);
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> rows(6, 6);
  const Eigen::MatrixXf columns(6, 6);
  for (const auto& refused : {rows.block(0, 1, 3, 1), rows.block(0, 0, 1, 2), rows.block(0, 0, 3, 2)})
    CHECK(code_of([&] { BiasView<float>{refused}; }) ==
          (refused.rows() == 1 ? std::optional<ErrorCode>() : ErrorCode::shape));
  CHECK(code_of([&] { DenseBase(weight, rows.block(0, 1, 3, 1)); }) == ErrorCode::shape);
  CHECK(code_of([&] { DenseBase(weight, columns.block(1, 0, 1, 3)); }) == ErrorCode::shape);
  CHECK(code_of([&] { DenseBase(weight, columns.row(1)); }) == ErrorCode::shape);
  const std::vector<float> six(6);
  const Eigen::Map<const Eigen::VectorXf, 0, Eigen::InnerStride<>> apart(six.data(), 3, Eigen::InnerStride<>(2));
  CHECK(code_of([&] { DenseBase(weight, apart); }) == ErrorCode::shape);
  CHECK_FALSE(DenseBase(weight).bias());
  CHECK(BiasView<float>().empty());
  CHECK_FALSE(BiasView<float>().row());
}
