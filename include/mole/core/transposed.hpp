// SPDX-License-Identifier: MIT
// Transposed: a weight that lies in memory the other way round.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/core/view.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A weight [O x I] whose memory holds [I x O], row by row: the weights of dlib, tiny-dnn and GPT-2's Conv1D, and
/// column-major ones [O x I]. Borrows a View, a Matrix or a row-major matrix of Eigen's, which must outlive what is
/// made of it.
///     PackedBase{Transposed{weight}, bias}     Nf4Base{Transposed{weight}, bias}
template <class T>
class Transposed {
 public:
  using Scalar = T;

  explicit Transposed(LastingView<const T> memory) : memory_(memory) {}

  Index rows() const { return memory_.cols(); }
  Index cols() const { return memory_.rows(); }
  const T& operator()(Index o, Index i) const { return memory_(i, o); }
  /// [I x O]
  View<const T> memory() const { return memory_; }

 private:
  View<const T> memory_;
};

/// The numbers of the weight [O x I] the usual way round, row by row.
template <class T>
std::vector<T> row_major(const Transposed<T>& weight) {
  constexpr Index tile = 32;  // whose rows, on both sides, stay in the cache
  const Index rows = weight.rows(), cols = weight.cols();
  std::vector<T> numbers(std::size_t(checked_product("Transposed", rows, cols)));
  for (Index first = 0; first < rows; first += tile)
    for (Index i = 0; i < cols; ++i)
      for (Index o = first; o < std::min(rows, first + tile); ++o) numbers[std::size_t(o * cols + i)] = weight(o, i);
  return numbers;
}

template <class T>
Transposed(View<T>) -> Transposed<std::remove_const_t<T>>;
template <class T>
Transposed(const Matrix<T>&) -> Transposed<T>;
template <RowMajorMatrix M>
Transposed(const M&) -> Transposed<std::remove_cvref_t<decltype(*std::declval<const M&>().data())>>;

}  // namespace mole

#include "mole/core/macros_on.hpp"
