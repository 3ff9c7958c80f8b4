// SPDX-License-Identifier: MIT
// Transposed, transposed(): a weight that lies in memory the other way round.
#pragma once

#include "mole/core/lasting_view.hpp"
#include "mole/core/view.hpp"

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A weight [O x I] whose memory holds [I x O], row by row: the weights of dlib, tiny-dnn and GPT-2's Conv1D, and
/// column-major ones [O x I].
template <class T>
class Transposed {
 public:
  using Scalar = std::remove_const_t<T>;

  explicit Transposed(View<T> memory) : memory_(memory) {}

  Index rows() const { return memory_.cols(); }
  Index cols() const { return memory_.rows(); }
  T& operator()(Index o, Index i) const { return memory_(i, o); }
  View<T> memory() const { return memory_; }

 private:
  View<T> memory_;
};

/// Of what holds [I x O]: a View, a Matrix or Eigen's row-major matrices, which must outlive what borrows it.
///     PackedBase{transposed(weight), bias}
template <class M>
auto transposed(M&& memory) {
  using T = std::remove_cvref_t<decltype(*memory.data())>;
  return Transposed<const T>(LastingView<const T>(std::forward<M>(memory)).view());
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
