// SPDX-License-Identifier: MIT
#include "mole/core/lasting_view.hpp"

#include "support/catch.hpp"

#include <Eigen/Core>

#include <cstdint>
#include <vector>

namespace {

using namespace mole;

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Lasting = LastingView<const float>;

static_assert(std::is_constructible_v<Lasting, View<float>> && std::is_constructible_v<Lasting, Matrix<float>&> &&
              std::is_constructible_v<Lasting, const Matrix<float>&>);
static_assert(std::is_constructible_v<Lasting, RowMajor&> && std::is_constructible_v<Lasting, Eigen::Map<RowMajor>>);
static_assert(!std::is_constructible_v<Lasting, Matrix<float>> &&
              !std::is_constructible_v<Lasting, const Matrix<float>> && !std::is_constructible_v<Lasting, RowMajor>);
static_assert(!std::is_constructible_v<Lasting, View<const double>>);

/// Encodes numbers, or borrows codes.
struct Code {
  explicit Code(View<const float>) {}
  explicit Code(LastingView<const std::uint16_t>) {}
};
static_assert(std::is_constructible_v<Code, Matrix<float>> && std::is_constructible_v<Code, RowMajor> &&
              std::is_constructible_v<Code, Eigen::MatrixXf::ConstTransposeReturnType>);
static_assert(!std::is_constructible_v<Code, Matrix<std::uint16_t>>);

}  // namespace

TEST_CASE("A LastingView is the view of what stays", "[core]") {
  Matrix<float> matrix(2, 3);
  const Lasting of_matrix = matrix;
  CHECK(of_matrix.view().data() == matrix.data());
  CHECK(of_matrix.view().cols() == 3);
  RowMajor eigen(4, 5);
  const Lasting of_eigen = eigen, of_block = eigen.block(1, 0, 2, 5);
  CHECK(of_eigen.view().data() == eigen.data());
  CHECK(of_block.view().data() == eigen.data() + 5);
  CHECK(of_block.view().rows() == 2);
  CHECK_FALSE(Lasting().view());
}
