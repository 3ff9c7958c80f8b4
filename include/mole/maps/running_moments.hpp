// SPDX-License-Identifier: MIT
// RunningMoments: means and variances that training leaves for evaluation, of each feature of each expert.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"

#include <algorithm>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The moments of one forward pass, in its scratch: of each expert the number of its rows, their mean, and their
/// variance (over n, not n - 1).   count [1 x E], mean and variance [E x O]
template <class T>
struct BatchMoments {
  View<T> count, mean, variance;
};

/// State that has no gradient, of experts that are normalized by their batch in training and by these in evaluation:
///
///   mean_e += momentum (batch mean - mean_e),   variance_e += momentum (n / (n - 1) batch variance - variance_e)
///
///   mean [E x O], from 0   variance [E x O], from 1
///
/// Nothing happens behind forward: update() takes the moments of the last forward, once; a second call, or one after a
/// forward in evaluation, finds none. An expert of fewer than two rows has no variance, and keeps what it had.
///
/// Throws Error(option) for sizes below 1 or a momentum outside [0, 1], Error(shape) for moments of others.
/// update(): O(E O), no allocation.
/// Source: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 2; the momentum is PyTorch's.
template <class T>
class RunningMoments {
 public:
  RunningMoments(Index experts, Index features, double momentum) : momentum_(momentum) {
    require(experts >= 1 && features >= 1, ErrorCode::option,
            "RunningMoments: expected experts and features of at least 1, found ", experts, ", ", features);
    require(momentum >= 0 && momentum <= 1, ErrorCode::option, "RunningMoments: expected a momentum in [0, 1], found ",
            momentum);
    mean_ = variance_ = Matrix<T>(experts, features);
    reset();
  }

  View<T> mean() { return mean_.view(); }
  View<T> variance() { return variance_.view(); }
  View<const T> mean() const { return mean_.view(); }
  View<const T> variance() const { return variance_.view(); }
  double momentum() const { return momentum_; }

  void reset() {
    mean_.set_zero();
    fill(variance_.view(), T(1));
  }

  /// Takes the counts, too: the moments of a call are added once.
  void update(const BatchMoments<T>& batch) {
    require(batch.count.cols() == mean_.rows() && batch.mean.rows() == mean_.rows() &&
                batch.mean.cols() == mean_.cols() && batch.variance.rows() == mean_.rows() &&
                batch.variance.cols() == mean_.cols(),
            ErrorCode::shape, "RunningMoments: expected moments of [", mean_.rows(), " x ", mean_.cols(), "], found [",
            batch.mean.rows(), " x ", batch.mean.cols(), "]");
    for (Index e = 0; e < mean_.rows(); ++e) {
      const double rows = double(batch.count(0, e));
      if (rows >= 2)
        for (Index o = 0; o < mean_.cols(); ++o) {
          move(mean_(e, o), double(batch.mean(e, o)));
          move(variance_(e, o), double(batch.variance(e, o)) * rows / (rows - 1));
        }
      batch.count(0, e) = T(0);
    }
  }

  template <class F>
  void for_each_state(F&& f) {
    f("mean", mean_.elements());
    f("variance", variance_.elements());
  }

 private:
  void move(T& value, double to) const { value = T(double(value) + momentum_ * (to - double(value))); }

  double momentum_;
  Matrix<T> mean_, variance_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
