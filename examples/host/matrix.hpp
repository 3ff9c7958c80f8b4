// SPDX-License-Identifier: MIT
#pragma once

// The matrix type of the host model and the views by which its parts hand activations to each other.

#include <Eigen/Core>

namespace host {

using Index = Eigen::Index;

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Row-major elements that belong to somebody else; consecutive rows are `outerStride()` apart. Passed by value.
/// A Map and not an `Eigen::Ref<const ...>`: a Ref copies silently when the layout does not fit.
template <class T>
using View = Eigen::Map<Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;
template <class T>
using ConstView = Eigen::Map<const Matrix<T>, Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
View<T> view(Matrix<T>& m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.outerStride())};
}

template <class T>
ConstView<T> view(const Matrix<T>& m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.outerStride())};
}

template <class T>
ConstView<T> read_only(View<T> m) {
  return {m.data(), m.rows(), m.cols(), Eigen::OuterStride<>(m.outerStride())};
}

/// The view that stands for "not wanted" where a gradient may be declined.
template <class T>
View<T> no_view() {
  return {nullptr, 0, 0, Eigen::OuterStride<>(0)};
}

/// The `rows x cols` elements of `m` that start at (row, col); `m` is any View, ConstView or Matrix.
template <class M>
auto tile(M&& m, Index row, Index col, Index rows, Index cols) {
  using Scalar = typename std::decay_t<M>::Scalar;
  const Index stride = m.outerStride();
  auto* first = m.data() + row * stride + col;
  using Result =
      std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(first)>>, ConstView<Scalar>, View<Scalar>>;
  return Result(first, rows, cols, Eigen::OuterStride<>(stride));
}

/// Rows [begin, begin + count) of `m`.
template <class M>
auto rows(M&& m, Index begin, Index count) {
  return tile(m, begin, 0, count, m.cols());
}

}  // namespace host
