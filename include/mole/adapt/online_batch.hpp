// SPDX-License-Identifier: MIT
// OnlineBatch: the samples of a stream until there are enough for a step of its router.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Collects samples (x, targets) one by one.
///
///   if (batch.add(x, targets)) {                         // the batch is full
///     layer.route(batch.x(), work);
///     multi_hot_bce(work, batch.targets());
///     layer.route_backward(batch.x(), {}, gradients, work);
///     adamw.step(layer, gradients);
///     batch.clear();
///   }
///
/// The parameters do not change before the last sample, so that one route() of the whole batch gives the logits that
/// the samples had when they arrived. A batch is state: for_each_state() shows it to a checkpoint.
/// Throws Error(option) for sizes below 1, Error(shape) for a sample of another size, Error(order) for one that is
/// added to a full batch. add(): O(I + E), no allocation.
/// Source: Aspis et al. 2025 (DriftMoE), arXiv:2507.18464, as released (miguel-ceadar/drift-moe): 256 samples, Adam
/// with a rate of 2e-3, targets from right_experts().
template <class T>
class OnlineBatch {
 public:
  struct Options {
    Index in = 0;
    Index experts = 0;
    Index samples = 256;
  };

  explicit OnlineBatch(const Options& options) {
    require(options.in >= 1 && options.experts >= 1 && options.samples >= 1, ErrorCode::option,
            "OnlineBatch: expected in, experts and samples of at least 1, found ", options.in, ", ", options.experts,
            ", ", options.samples);
    x_ = Matrix<T>(options.samples, options.in);
    targets_ = Matrix<T>(options.samples, options.experts);
  }

  /// True if the batch is full.
  bool add(std::span<const std::type_identity_t<T>> x, std::span<const std::type_identity_t<T>> targets) {
    require_equal(ErrorCode::shape, "OnlineBatch: size of x", x_.cols(), Index(x.size()));
    require_equal(ErrorCode::shape, "OnlineBatch: size of the targets", targets_.cols(), Index(targets.size()));
    require(!full(), ErrorCode::order, "OnlineBatch: expected clear() after the last of ", x_.rows(),
            " samples, found another");
    std::ranges::copy(x, x_.view().row_data(size()));
    std::ranges::copy(targets, targets_.view().row_data(size()));
    ++size_;
    return full();
  }
  void clear() { size_ = 0; }

  Index size() const { return Index(size_); }
  bool full() const { return size() == x_.rows(); }
  /// Of the samples so far.   [size x I], [size x E]
  View<const T> x() const { return x_.view().top(size()); }
  View<const T> targets() const { return targets_.view().top(size()); }

  /// Throws Error(option) for a size that the batch cannot have, before the samples are visited.
  template <class F>
  void for_each_state(F&& f) {
    std::int64_t size = size_;
    f("size", std::span<std::int64_t>(&size, 1));
    require(size >= 0 && size <= x_.rows(), ErrorCode::option, "OnlineBatch: expected a size from 0 to ", x_.rows(),
            ", found ", size);
    size_ = size;
    f("x", std::span<T>(x_.elements()));
    f("targets", std::span<T>(targets_.elements()));
  }

 private:
  Matrix<T> x_, targets_;
  std::int64_t size_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
