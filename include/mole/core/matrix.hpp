// SPDX-License-Identifier: MIT
// Matrix: an owned row-major matrix, for parameters, gradients and scratch.
#pragma once

#include "mole/core/checked_size.hpp"
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
template <class T>
class Matrix {
 public:
  using Scalar = T;

  Matrix() : Matrix(0, 0) {}
  Matrix(Index rows, Index cols, std::pmr::memory_resource* memory = CacheLineMemory::shared())
      : elements_(std::size_t(checked_product("Matrix", rows, cols, Index(sizeof(T)))) / sizeof(T), T(0), memory),
        rows_(rows),
        cols_(cols) {}
  Matrix(const Matrix& other)
      : elements_(other.elements_, CacheLineMemory::shared()), rows_(other.rows_), cols_(other.cols_) {}
  Matrix(Matrix&&) noexcept = default;
  Matrix& operator=(const Matrix&) = default;
  Matrix& operator=(Matrix&&) = default;
  ~Matrix() = default;

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index size() const { return rows_ * cols_; }
  bool empty() const { return elements_.empty(); }

  T* data() { return elements_.data(); }
  const T* data() const { return elements_.data(); }
  T& operator()(Index row, Index col) { return elements_[std::size_t(row * cols_ + col)]; }
  const T& operator()(Index row, Index col) const { return elements_[std::size_t(row * cols_ + col)]; }
  std::span<T> elements() { return elements_; }
  std::span<const T> elements() const { return elements_; }

  /// The whole matrix; an empty matrix gives an empty view. Not of a temporary, which its view would outlive.
  View<T> view() & { return {empty() ? nullptr : data(), rows_, cols_}; }
  View<const T> view() const& { return {empty() ? nullptr : data(), rows_, cols_}; }
  View<T> view() && = delete;
  View<const T> view() const&& = delete;
  operator View<T>() { return view(); }
  operator View<const T>() const { return view(); }

  void set_zero() { std::fill(elements_.begin(), elements_.end(), T(0)); }

 private:
  std::pmr::vector<T> elements_;
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
