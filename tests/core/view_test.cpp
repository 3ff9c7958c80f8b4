// SPDX-License-Identifier: MIT
#include "mole/core/view.hpp"

#include "mole/core/matrix.hpp"
#include "core/error_code.hpp"
#include "support/catch.hpp"

#include <Eigen/Core>

#include <array>
#include <vector>

using namespace mole;

namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColumnMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic>;

/// 10 r + c at (r, c).
template <class M>
M numbered(Index rows, Index cols) {
  M matrix(rows, cols);
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) matrix(r, c) = float(10 * r + c);
  return matrix;
}

/// What std::mdspan<T, dextents<int, 2>> shows of itself.
template <class T>
struct FakeMdspan {
  T* data;
  std::array<int, 2> extents, strides;

  static constexpr std::size_t rank() { return 2; }
  T* data_handle() const { return data; }
  int extent(std::size_t i) const { return extents[i]; }
  int stride(std::size_t i) const { return strides[i]; }
};
struct FakeVector : FakeMdspan<float> {
  static constexpr std::size_t rank() { return 1; }
};

template <class T>
bool is(View<T> view, const void* data, Index rows, Index cols, Index stride) {
  return view.data() == data && view.rows() == rows && view.cols() == cols && view.stride() == stride;
}

/// The element type of the view that a function taking View<const T> gets.
float sum(View<const float> view) {
  float total = 0;
  for (Index r = 0; r < view.rows(); ++r)
    for (float element : view.row(r)) total += element;
  return total;
}

}  // namespace

TEST_CASE("A view shows rows a stride apart, and its parts share the data", "[core]") {
  std::vector<float> data(20);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = float(i);
  const View<float> view(data.data(), 4, 3, 5);
  CHECK(view(2, 1) == 11);
  CHECK(view.row_data(3) == data.data() + 15);
  CHECK(view.size() == 12);
  CHECK(std::vector<float>(view.row(1).begin(), view.row(1).end()) == std::vector<float>{5, 6, 7});
  CHECK(is(view.top(2), data.data(), 2, 3, 5));
  CHECK(is(view.middle_rows(1, 2), data.data() + 5, 2, 3, 5));
  CHECK(view.middle_rows(1, 2)(1, 2) == 12);
  CHECK(is(view.middle_cols(1, 2), data.data() + 1, view.rows(), 2, 5));

  fill(view, 1);
  CHECK(data[2] == 1);
  CHECK(data[3] == 3);  // between the rows
  CHECK(data[17] == 1);
  CHECK(data[18] == 18);
}

TEST_CASE("A view without data is empty and false", "[core]") {
  CHECK_FALSE(View<float>());
  CHECK_FALSE(View<const float>(View<float>()));
  CHECK(View<float>().rows() == 0);
  float number = 0;
  CHECK(View<float>(&number, 1, 1));
}

TEST_CASE("A view of a span has the span's rows side by side", "[core]") {
  std::vector<float> data(6);
  CHECK(is(View<float>(std::span<float>(data), 2, 3), data.data(), 2, 3, 3));
  CHECK(is(View<const float>(std::span<const float>(data), 3, 2), data.data(), 3, 2, 2));
}

TEST_CASE("A view of const data comes from one that is not, and not the other way", "[core]") {
  STATIC_REQUIRE(std::is_convertible_v<View<float>, View<const float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<View<const float>, View<float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<View<double>, View<const float>>);
  STATIC_REQUIRE(std::is_trivially_copyable_v<View<float>>);
  std::vector<float> data(8);
  const View<float> view(data.data(), 2, 3, 4);
  CHECK(is(View<const float>(view), data.data(), 2, 3, 4));
}

TEST_CASE("Row-major Eigen matrices, maps, references and blocks convert without a copy", "[core]") {
  RowMajor matrix = numbered<RowMajor>(4, 6);
  const RowMajor& constant = matrix;
  CHECK(is(View<float>(matrix), matrix.data(), 4, 6, 6));
  CHECK(is(View<const float>(matrix), matrix.data(), 4, 6, 6));
  CHECK(is(View<const float>(constant), matrix.data(), 4, 6, 6));

  auto block = matrix.block(1, 2, 3, 2);
  CHECK(is(View<float>(block), matrix.data() + 8, 3, 2, 6));
  CHECK(is(View<const float>(constant.block(1, 2, 3, 2)), matrix.data() + 8, 3, 2, 6));
  CHECK(is(View<float>(matrix.middleRows(1, 2)), matrix.data() + 6, 2, 6, 6));
  CHECK(View<const float>(constant.block(1, 2, 3, 2))(2, 1) == 33);

  Eigen::Ref<RowMajor> reference(matrix.leftCols(2));
  CHECK(is(View<float>(reference), matrix.data(), 4, 2, 6));

  Eigen::Map<RowMajor, 0, Eigen::OuterStride<>> map(matrix.data(), 2, 3, Eigen::OuterStride<>(12));
  CHECK(is(View<float>(map), matrix.data(), 2, 3, 12));
  const Eigen::Map<const RowMajor> constant_map(matrix.data(), 8, 3);
  CHECK(is(View<const float>(constant_map), matrix.data(), 8, 3, 3));

  CHECK(sum(matrix.topRows(1)) == 0 + 1 + 2 + 3 + 4 + 5);
}

TEST_CASE("Eigen types that a view cannot show do not convert", "[core]") {
  STATIC_REQUIRE(std::is_convertible_v<RowMajor&, View<float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const RowMajor&, View<float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<Eigen::Map<const RowMajor>&, View<float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<RowMajor&, View<double>>);
}

TEST_CASE("Numbers of a row that the run shows to lie apart are refused in every build", "[core]") {
  std::vector<float> numbers(48);
  using Apart = Eigen::Map<RowMajor, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  CHECK(test::code_of([&] { View<float>(Apart(numbers.data(), 4, 3, {6, 2})); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { View<float>(Apart(numbers.data(), 4, 1, {6, 2})); }) == std::nullopt);
  CHECK(test::code_of([&] { View<float>(Apart(numbers.data(), 4, 3, {6, 1})); }) == std::nullopt);
  CHECK(test::code_of([&] { View<float>(FakeMdspan<float>{numbers.data(), {3, 4}, {8, 2}}); }) == ErrorCode::shape);
}

TEST_CASE("Views overlap where they share an element", "[core]") {
  std::vector<float> numbers(100);
  const auto view = [&](Index at, Index rows, Index cols, Index stride) {
    return View<const float>(numbers.data() + at, rows, cols, stride);
  };
  CHECK(overlap(view(0, 4, 5, 10), view(0, 4, 5, 10)));
  CHECK_FALSE(overlap(view(0, 4, 5, 10), view(5, 4, 5, 10)));  // columns of one matrix
  CHECK_FALSE(overlap(view(5, 4, 5, 10), view(0, 4, 5, 10)));
  CHECK(overlap(view(0, 4, 6, 10), view(5, 4, 5, 10)));
  CHECK(overlap(view(6, 4, 5, 10), view(10, 4, 5, 10)));  // the end of a row and the next one
  CHECK(overlap(view(10, 4, 5, 10), view(6, 4, 5, 10)));
  CHECK_FALSE(overlap(view(0, 4, 5, 10), view(40, 4, 5, 10)));
  CHECK_FALSE(overlap(view(0, 4, 5, 5), view(20, 4, 5, 5)));
  CHECK(overlap(view(0, 4, 5, 5), view(19, 4, 5, 5)));
  CHECK_FALSE(overlap(view(0, 0, 5, 5), view(0, 4, 5, 5)));
  CHECK_FALSE(overlap(View<const float>(), view(0, 4, 5, 5)));
}

TEST_CASE("A two-dimensional mdspan with contiguous columns converts", "[core]") {
  std::vector<float> data(24);
  FakeMdspan<float> span{data.data(), {3, 4}, {8, 1}};
  CHECK(is(View<float>(span), data.data(), 3, 4, 8));
  CHECK(is(View<const float>(span), data.data(), 3, 4, 8));
  CHECK(is(View<const float>(FakeMdspan<const float>{data.data(), {2, 4}, {4, 1}}), data.data(), 2, 4, 4));
  STATIC_REQUIRE_FALSE(std::is_convertible_v<FakeMdspan<const float>, View<float>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<FakeVector, View<float>>);
}

TEST_CASE("A view of a matrix of mole shows the same memory", "[core]") {
  Matrix<float> matrix(2, 3);
  CHECK(is(View<float>(matrix), matrix.data(), 2, 3, 3));
  CHECK(is(View<const float>(matrix), matrix.data(), 2, 3, 3));
  STATIC_REQUIRE_FALSE(std::is_convertible_v<const Matrix<float>&, View<float>>);
}
