// SPDX-License-Identifier: MIT
// View: a borrowed row-major matrix, the form in which every tensor enters and leaves mole.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/config.hpp"

#include <algorithm>
#include <compare>
#include <concepts>
#include <span>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

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

/// A dense column-major matrix of another library, which no view can be of.
template <class M>
concept ColumnMajorMatrix = requires(M& m) {
  m.data();
  m.outerStride();
  requires !bool(std::remove_cvref_t<M>::IsRowMajor);
};

namespace detail {
/// Are the numbers of a row known to lie apart?
template <class M>
constexpr bool has_inner_stride = [] {
  if constexpr (requires { std::remove_cvref_t<M>::InnerStrideAtCompileTime; })
    return int(std::remove_cvref_t<M>::InnerStrideAtCompileTime) > 1;
  return false;
}();
}  // namespace detail

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
/// View<T> to View<const T>, and from anything that models RowMajorMatrix or RowMajorSpan. The numbers of a row must be
/// neighbors in memory: what is known to be otherwise does not compile, and what shows it at run time throws
/// Error(shape).
template <class T>
class View {
 public:
  using Scalar = std::remove_const_t<T>;

  View() = default;
  View(T* data, Index rows, Index cols) : View(data, rows, cols, cols) {}
  View(T* data, Index rows, Index cols, Index stride) : data_(data), rows_(rows), cols_(cols), stride_(stride) {}
  View(std::span<T> data, Index rows, Index cols) : View(data.data(), rows, cols) {
    require(checked_product("View", rows, cols) <= Index(data.size()), ErrorCode::shape, "View: expected at least ",
            rows * cols, " numbers, found ", data.size());
  }

  template <class U>
  requires(!std::same_as<U, T> && std::same_as<const U, T>) View(const View<U>& other)
      : View(other.data(), other.rows(), other.cols(), other.stride()) {}

  template <RowMajorMatrix M>
  requires std::convertible_to<decltype(std::declval<M&>().data()), T*> View(M&& m)
      : View(m.data(), Index(m.rows()), Index(m.cols()), Index(m.outerStride())) {
    static_assert(!detail::has_inner_stride<M>,
                  "mole: the numbers of a row of this matrix are not neighbors in memory: pass a copy");
    if constexpr (requires { m.innerStride(); }) require_neighbors(Index(m.innerStride()), Index(m.cols()));
  }
  template <ColumnMajorMatrix M>
  View(M&&) {
    static_assert(
        !ColumnMajorMatrix<M>,
        "mole: this matrix is column-major and a View is row-major: pass m.transpose() of tokens that are the "
        "columns of m, and Transposed{View<const T>(m.transpose())} of a weight [O x I]");
  }

  template <RowMajorSpan M>
  requires std::convertible_to<decltype(std::declval<M&>().data_handle()), T*> View(M&& m)
      : View(m.data_handle(), Index(m.extent(0)), Index(m.extent(1)), Index(m.stride(0))) {
    require_neighbors(Index(m.stride(1)), Index(m.extent(1)));
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
    return {detail::moved(data_, first * stride_), rows, cols_, stride_};
  }
  View middle_cols(Index first, Index cols) const {
    MOLE_ASSERT(first >= 0 && first + cols <= cols_);
    return {detail::moved(data_, first), rows_, cols, stride_};
  }

  /// False for a view without data: an unwanted result, or a frozen gradient.
  explicit operator bool() const { return data_ != nullptr; }

 private:
  static void require_neighbors(Index distance, Index cols) {
    require(distance == 1 || cols <= 1, ErrorCode::shape, "View: expected numbers of a row at a distance of 1, found ",
            distance);
  }

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

namespace detail {
/// overlap() of views whose memory may be interleaved.
template <class T>
bool interleaved_overlap(const View<const T>& a, const View<const T>& b) {
  if (!a || !b || a.size() == 0 || b.size() == 0) return false;
  if (a.stride() != b.stride() || a.rows() == 1 || b.rows() == 1) return true;
  const Index apart = (b.data() - a.data()) % a.stride(), behind = apart < 0 ? apart + a.stride() : apart;
  return behind < a.cols() || a.stride() - behind < b.cols();
}
}  // namespace detail

/// Do two views share an element? Columns of one wider matrix do not, though their rows are interleaved; views with
/// rows at different distances count as sharing where their memory is interleaved.
template <class T>
bool overlap(const View<const T>& a, const View<const T>& b) {
  const auto ends_before = [](const View<const T>& first, const View<const T>& second) {
    return std::compare_three_way{}(first.row_data(first.rows() - 1) + first.cols(), second.data()) <= 0;
  };
  return a.rows() > 0 && b.rows() > 0 && !ends_before(a, b) && !ends_before(b, a) && detail::interleaved_overlap(a, b);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
