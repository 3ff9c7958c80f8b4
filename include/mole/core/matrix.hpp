// SPDX-License-Identifier: MIT
// Matrix: an owned row-major matrix, for parameters, gradients and scratch.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/error.hpp"
#include "mole/core/memory/cache_line_memory.hpp"
#include "mole/core/memory/taken_by_move.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <memory_resource>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A row-major matrix [rows x cols] without padding, initially zero. Its memory may come from a resource of the
/// caller. Otherwise it begins at a cache line (CacheLineMemory); so do copies, which never outlive borrowed memory.
/// Throws Error(option) for sizes below 0, and for more bytes than Index can count.
///
/// Its numbers may live with the caller instead (borrow, live_in), in the array that a host's optimizer steps, say.
/// They stay there when the matrix is moved, and when one of the same shape is assigned to it; a copy has memory of its
/// own.
template <class T>
class Matrix {
 public:
  using Scalar = T;

  Matrix() : Matrix(0, 0) {}
  Matrix(Index rows, Index cols, std::pmr::memory_resource* memory = CacheLineMemory::shared())
      : elements_(std::size_t(checked_product("Matrix", rows, cols, Index(sizeof(T)))) / sizeof(T), T(0), memory),
        data_(elements_.data()),
        rows_(rows),
        cols_(cols) {}
  Matrix(const Matrix& other)
      : elements_(other.data(), other.data() + other.size(), CacheLineMemory::shared()),
        data_(elements_.data()),
        rows_(other.rows_),
        cols_(other.cols_) {}
  Matrix(Matrix&&) noexcept = default;
  Matrix& operator=(const Matrix& other) {
    if (this == &other) return *this;
    if (rows() == other.rows() && cols() == other.cols()) {
      std::ranges::copy(other.elements(), data());
    } else {
      std::pmr::vector<T> copy(other.data(), other.data() + other.size(), elements_.get_allocator());
      elements_.swap(copy);
      data_ = elements_.data(), rows_ = other.rows_, cols_ = other.cols_;
    }
    return *this;
  }
  Matrix& operator=(Matrix&& other) {
    if (this == &other) return *this;
    if (borrows() && rows() == other.rows() && cols() == other.cols()) {
      std::ranges::copy(other.elements(), data());
    } else {
      const bool borrows = other.borrows();
      elements_ = std::move(other.elements_);  // copies what another resource has
      data_ = borrows ? other.data() : elements_.data();
      rows_ = other.rows_, cols_ = other.cols_;
    }
    other.elements_.clear();
    other.data_ = nullptr, other.rows_ = 0, other.cols_ = 0;
    return *this;
  }
  ~Matrix() = default;

  /// The numbers that `memory` has, where they are; it must outlive the matrix. Throws Error(shape) for rows with gaps.
  static Matrix borrow(View<T> memory) {
    require(memory.rows() <= 1 || memory.stride() == memory.cols(), ErrorCode::shape,
            "Matrix: expected rows without gaps, found a stride of ", memory.stride(), " for ", memory.cols(),
            " columns");
    Matrix matrix;
    matrix.data_ = memory.data(), matrix.rows_ = memory.rows(), matrix.cols_ = memory.cols();
    return matrix;
  }
  /// Moves the numbers to `memory`, where they live from now on. Throws Error(shape) for another shape, and for rows
  /// with gaps.
  void live_in(View<T> memory) {
    require(memory.rows() == rows() && memory.cols() == cols(), ErrorCode::shape, "Matrix: expected memory of [",
            rows(), " x ", cols(), "], found [", memory.rows(), " x ", memory.cols(), "]");
    Matrix there = borrow(memory);
    if (data() != there.data()) std::ranges::copy(elements(), there.data());
    std::pmr::vector<T>(elements_.get_allocator()).swap(elements_);
    data_ = there.data();
  }
  /// Gives the numbers memory of the matrix's own.
  void live_here() {
    if (!borrows()) return;
    elements_.assign(data(), data() + size());
    data_ = elements_.data();
  }
  /// Do the numbers live in memory of the caller?
  bool borrows() const { return !empty() && elements_.empty(); }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index size() const { return rows_ * cols_; }
  bool empty() const { return size() == 0; }

  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator()(Index row, Index col) { return data()[row * cols_ + col]; }
  const T& operator()(Index row, Index col) const { return data()[row * cols_ + col]; }
  std::span<T> elements() { return {data(), std::size_t(size())}; }
  std::span<const T> elements() const { return {data(), std::size_t(size())}; }

  /// The whole matrix; an empty matrix gives an empty view. Not of a temporary, which its view would outlive.
  View<T> view() & { return {empty() ? nullptr : data(), rows_, cols_}; }
  View<const T> view() const& { return {empty() ? nullptr : data(), rows_, cols_}; }
  View<T> view() && = delete;
  View<const T> view() const&& = delete;
  operator View<T>() { return view(); }
  operator View<const T>() const { return view(); }

  void set_zero() { std::ranges::fill(elements(), T(0)); }

 private:
  std::pmr::vector<T> elements_;  // none when the numbers live with the caller
  TakenByMove<T*> data_;
  TakenByMove<Index> rows_, cols_;
};

/// The rows of `above`, then those of `below`, which has as many columns.
template <class T>
Matrix<T> stacked(const Matrix<T>& above, const Matrix<T>& below) {
  MOLE_ASSERT(above.cols() == below.cols());
  Matrix<T> both(above.rows() + below.rows(), above.cols());
  std::ranges::copy(below.elements(), std::ranges::copy(above.elements(), both.elements().begin()).out);
  return both;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
