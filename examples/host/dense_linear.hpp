// SPDX-License-Identifier: MIT
#pragma once

// The host's own linear layer: one dense weight, no bias.

#include "host/linear.hpp"
#include "host/parallel.hpp"

namespace host {

/// y = x W^T.  W [O x I]
///
/// While the weight is frozen its gradient is neither computed nor stored. Eigen's products may allocate for packing.
template <class T>
class DenseLinear final : public Linear<T> {
 public:
  DenseLinear(Index in, Index out, Parallel parallel) : weight_(out, in), parallel_(std::move(parallel)) {}

  [[nodiscard]] Index in() const override { return weight_.value.cols(); }
  [[nodiscard]] Index out() const override { return weight_.value.rows(); }
  [[nodiscard]] bool trainable() const override { return !weight_.frozen(); }

  Parameter<T>& weight() { return weight_; }
  const Parameter<T>& weight() const { return weight_; }

  void forward(ConstView<T> x, View<T> y) override;
  void backward(ConstView<T> x, ConstView<T> d_y, View<T> d_x) override;

  void visit(const std::string& prefix, const Visitor<T>& f) override { f(prefix + ".weight", weight_); }

 private:
  Parameter<T> weight_;
  Parallel parallel_;
};

template <class T>
void DenseLinear<T>::forward(ConstView<T> x, View<T> y) {
  for_pieces(parallel_, x.rows(), row_piece, [&](Index begin, Index count) {
    rows(y, begin, count).noalias() = rows(x, begin, count) * weight_.value.transpose();
  });
}

template <class T>
void DenseLinear<T>::backward(ConstView<T> x, ConstView<T> d_y, View<T> d_x) {
  if (d_x.size() != 0) {
    for_pieces(parallel_, x.rows(), row_piece, [&](Index begin, Index count) {
      rows(d_x, begin, count).noalias() += rows(d_y, begin, count) * weight_.value;
    });
  }
  if (weight_.frozen()) return;
  // Cut by rows of W, not by tokens: the sum over tokens then has one order whatever the number of threads.
  for_pieces(parallel_, out(), row_piece, [&](Index begin, Index count) {
    rows(weight_.gradient, begin, count).noalias() += d_y.middleCols(begin, count).transpose() * x;
  });
}

}  // namespace host
