// SPDX-License-Identifier: MIT
// GuardedMatrix: a matrix that detects reads and writes outside its bounds.
#pragma once

#include "mole/core/random.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace mole::test {

/// Where the elements of a GuardedMatrix lie in its buffer.
struct Placement {
  Index padding = 0;  ///< elements between the end of a row and the next row
  Index before = 0;   ///< elements before the first row: 1 takes it off every vector's alignment
  Index after = 0;    ///< elements behind the last row
};

/// A matrix [rows x cols] in a heap buffer of exactly its size, so that an address sanitizer sees whoever leaves it.
/// Everything around and between its rows is filled with one number.
template <class T>
class GuardedMatrix {
 public:
  GuardedMatrix(Index rows, Index cols, T around, Placement place = {})
      : around_(around),
        rows_(rows),
        cols_(cols),
        stride_(cols + place.padding),
        before_(place.before),
        elements_(std::size_t(place.before + (rows > 0 ? (rows - 1) * stride_ + cols : 0) + place.after), around) {
    fill(view(), T(0));
  }

  View<T> view() { return {elements_.data() + before_, rows_, cols_, stride_}; }
  View<const T> view() const { return {elements_.data() + before_, rows_, cols_, stride_}; }
  T* row(Index r) { return view().row_data(r); }
  const T* row(Index r) const { return view().row_data(r); }
  T& operator()(Index r, Index c) { return view()(r, c); }
  const T& operator()(Index r, Index c) const { return view()(r, c); }

  /// Nobody has written beside the matrix.
  bool intact() const {
    GuardedMatrix expected = *this;
    std::fill(expected.elements_.begin(), expected.elements_.end(), around_);
    for (Index r = 0; r < rows_; ++r) std::copy_n(row(r), cols_, expected.row(r));
    return expected.elements_ == elements_;
  }

 private:
  T around_;
  Index rows_, cols_, stride_, before_;
  std::vector<T> elements_;
};

/// Random numbers in [-1, 1], surrounded by NaN: who reads beside it and uses it computes NaN.
template <class T>
GuardedMatrix<T> random_input(Index rows, Index cols, Rng& rng, Placement place = {}) {
  GuardedMatrix<T> matrix(rows, cols, std::numeric_limits<T>::quiet_NaN(), place);
  fill_uniform(matrix.view(), 1, rng);
  return matrix;
}

/// Random numbers in [-1, 1], surrounded by a number that no kernel computes.
template <class T>
GuardedMatrix<T> random_output(Index rows, Index cols, Rng& rng, Placement place = {}) {
  GuardedMatrix<T> matrix(rows, cols, T(-77.25), place);
  fill_uniform(matrix.view(), 1, rng);
  return matrix;
}

/// Pointers to the rows of a matrix.
template <class Matrix>
auto row_pointers(Matrix& matrix) {
  std::vector<decltype(matrix.row(0))> rows;
  for (Index r = 0; r < matrix.view().rows(); ++r) rows.push_back(matrix.row(r));
  return rows;
}

}  // namespace mole::test
