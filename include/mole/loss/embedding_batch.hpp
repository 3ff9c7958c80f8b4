// SPDX-License-Identifier: MIT
// EmbeddingBatch: embeddings in double, as they are or of length 1, and the way back of their gradients.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/unit_vector.hpp"

#include <memory_resource>
#include <span>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {

/// u_n = x_n, or x_n / ||x_n||.   x [N x D]
class EmbeddingBatch {
 public:
  template <class T>
  EmbeddingBatch(View<const T> x, bool normalized, std::pmr::memory_resource* memory)
      : u_(x.rows(), x.cols(), memory), directions_(memory) {
    for (Index n = 0; n < x.rows(); ++n) {
      const UnitVector direction = normalized ? UnitVector::of(x.row(n)) : UnitVector{};
      if (normalized) directions_.push_back(direction);
      for (Index c = 0; c < x.cols(); ++c) u_(n, c) = double(x(n, c)) * (normalized ? direction.scale() : 1);
    }
  }

  Index rows() const { return u_.rows(); }
  Index cols() const { return u_.cols(); }
  std::span<const double> row(Index n) const { return u_.view().row(n); }

  /// <u_n, v>
  double dot(Index n, std::span<const double> v) const {
    double sum = 0;
    for (std::size_t c = 0; c < v.size(); ++c) sum += row(n)[c] * v[c];
    return sum;
  }
  /// d_x += what d_u says of row n.   d_u [D]
  template <class T>
  void add_gradient(Index n, std::span<const double> d_u, View<T> d_x) const {
    const UnitVector* const direction = directions_.empty() ? nullptr : &directions_[std::size_t(n)];
    const double radial = direction != nullptr ? direction->inward(dot(n, d_u)) : 0;
    for (std::size_t c = 0; c < d_u.size(); ++c)
      d_x(n, Index(c)) += direction != nullptr ? T(direction->d_scale() * (d_u[c] - radial * row(n)[c])) : T(d_u[c]);
  }

 private:
  Matrix<double> u_;
  std::pmr::vector<UnitVector> directions_;  // empty if not normalized
};

/// Throws Error(shape), naming `who`, unless `other` has the size of `x`, or is an empty gradient.
template <class T>
void require_embeddings(std::string_view who, View<const T> x, View<const T> other, std::string_view what,
                        bool is_gradient) {
  require((is_gradient && !other) || (other.rows() == x.rows() && other.cols() == x.cols()), ErrorCode::shape, who,
          ": expected ", what, " of [", x.rows(), " x ", x.cols(), "], found [", other.rows(), " x ", other.cols(),
          "]");
}

}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
