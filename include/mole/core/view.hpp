// SPDX-License-Identifier: MIT
// View: a borrowed row-major matrix, the form in which every tensor enters and leaves mole.
#pragma once

#include "mole/core/config.hpp"

#include <algorithm>
#include <concepts>
#include <span>
#include <type_traits>
#include <utility>

namespace mole {

/// A dense row-major matrix of another library with rows `outerStride()` apart: Eigen's Matrix, Map, Ref and Block.
template <class M>
concept RowMajorMatrix = requires(M& m) {
  m.data();
  m.rows();
  m.cols();
  m.outerStride();
  requires bool(std::remove_cvref_t<M>::IsRowMajor);
};

/// A two-dimensional mdspan whose last index is contiguous (std::mdspan, Kokkos).
template <class M>
concept RowMajorSpan = requires(M& m) {
  m.data_handle();
  m.extent(0);
  m.extent(1);
  m.stride(0);
  m.stride(1);
  requires std::remove_cvref_t<M>::rank()
  == 2;
};

/// A row-major matrix that is owned elsewhere.
///
///   data [rows x cols], row r begins at data + r * stride
///
/// A view without data is empty and means "not wanted" wherever a result is optional. Converts without copying from
/// View<T> to View<const T>, and from anything that models RowMajorMatrix or RowMajorSpan.
template <class T>
class View {
 public:
  using Scalar = std::remove_const_t<T>;

  View() = default;
  View(T* data, Index rows, Index cols) : View(data, rows, cols, cols) {}
  View(T* data, Index rows, Index cols, Index stride) : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
  View(std::span<T> data, Index rows, Index cols) : View(data.data(), rows, cols) {
    MOLE_ASSERT(Index(data.size()) >= rows * cols);
  }

  template <class U>
  requires(!std::same_as<U, T> && std::same_as<const U, T>) View(const View<U>& other)
      : View(other.data(), other.rows(), other.cols(), other.stride()) {}

  template <RowMajorMatrix M>
  requires std::convertible_to<decltype(std::declval<M&>().data()), T*> View(M&& m)
      : View(m.data(), Index(m.rows()), Index(m.cols()), Index(m.outerStride())) {
    if constexpr (requires { m.innerStride(); }) MOLE_ASSERT(m.innerStride() == 1 || m.cols() <= 1);
  }

  template <RowMajorSpan M>
  requires std::convertible_to<decltype(std::declval<M&>().data_handle()), T*> View(M&& m)
      : View(m.data_handle(), Index(m.extent(0)), Index(m.extent(1)), Index(m.stride(0))) {
    MOLE_ASSERT(m.stride(1) == 1 || m.extent(1) <= 1);
  }

  T* data() const { return data_; }
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index stride() const { return stride_; }
  Index size() const { return rows_ * cols_; }

  T& operator()(Index row, Index col) const {
    MOLE_ASSERT(row >= 0 && row < rows_ && col >= 0 && col < cols_);
    return data_[row * stride_ + col];
  }
  T* row_data(Index row) const { return data_ + row * stride_; }
  std::span<T> row(Index row) const { return {row_data(row), std::size_t(cols_)}; }

  /// The first `rows` rows; the view itself must have at least as many.
  View top(Index rows) const {
    MOLE_ASSERT(rows <= rows_);
    return {data_, rows, cols_, stride_};
  }
  View middle_rows(Index first, Index rows) const {
    MOLE_ASSERT(first >= 0 && first + rows <= rows_);
    return {data_ + first * stride_, rows, cols_, stride_};
  }
  View middle_cols(Index first, Index cols) const {
    MOLE_ASSERT(first >= 0 && first + cols <= cols_);
    return {data_ + first, rows_, cols, stride_};
  }

  /// False for a view without data: an unwanted result, or a frozen gradient.
  explicit operator bool() const { return data_ != nullptr; }

 private:
  T* data_ = nullptr;
  Index rows_ = 0, cols_ = 0, stride_ = 0;
};

/// Sets every element of `view` to `value`.
template <class T>
void fill(View<T> view, std::type_identity_t<T> value) {
  for (Index r = 0; r < view.rows(); ++r)
    for (T& element : view.row(r)) element = value;
}

/// to = from, of the same shape, in other memory.
template <class T>
void copy(View<const std::type_identity_t<T>> from, View<T> to) {
  MOLE_ASSERT(from.rows() == to.rows() && from.cols() == to.cols());
  for (Index r = 0; r < to.rows(); ++r) std::copy_n(from.row_data(r), to.cols(), to.row_data(r));
}

}  // namespace mole
