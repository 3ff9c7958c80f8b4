// SPDX-License-Identifier: MIT
#pragma once

// Causal self-attention with rotary positions.

#include <cmath>

#include "host/parallel.hpp"
#include "host/rotary.hpp"

namespace host {

/// y = softmax(Q K^T / sqrt(D), causal) V, for every sequence and head.
///
///   qkv [S * L x 3W]: queries, keys, values, each W = heads * D wide   ->   y [S * L x W]
///
/// One task per sequence and head. Within it the queries go in strips of 32 rows, because a strip needs only the keys
/// up to its own end: at L = 128 that saves three eighths of the square.
template <class T>
class Attention {
 public:
  Attention(Index width, Index heads, Index length, Parallel parallel)
      : width_(width),
        heads_(heads),
        length_(length),
        depth_(width / heads),
        scale_(T(1) / std::sqrt(T(depth_))),
        rotary_(length, depth_),
        parallel_(std::move(parallel)) {}

  void reserve(Index tokens) {
    probabilities_.resize(tokens * heads_, length_);
    d_scores_.resize(tokens / length_ * heads_ * strip, length_);
  }

  /// Turns the queries and keys of `qkv` in place; backward expects them so.
  void forward(View<T> qkv, View<T> y);

  /// d_qkv <- (dy/dqkv)^T d_y, with respect to qkv before the turn. qkv and y are what forward left.
  void backward(ConstView<T> qkv, ConstView<T> y, ConstView<T> d_y, View<T> d_qkv);

 private:
  static constexpr Index strip = 32;

  void forward_head(Index task, View<T> qkv, View<T> y);
  void backward_head(Index task, ConstView<T> qkv, ConstView<T> y, ConstView<T> d_y, View<T> d_qkv);

  /// The part of one head in one sequence: `which` is 0 for queries (and for y), 1 for keys, 2 for values.
  template <class M>
  auto head(M&& m, Index task, Index which) const {
    return tile(m, task / heads_ * length_, which * width_ + task % heads_ * depth_, length_, depth_);
  }

  Index width_;
  Index heads_;
  Index length_;
  Index depth_;
  T scale_;
  Rotary<T> rotary_;
  Matrix<T> probabilities_;  // [S * heads * L x L]; of a row only the strip's keys are ever written or read
  Matrix<T> d_scores_;       // [S * heads * strip x L]: scratch of one strip for every task
  Parallel parallel_;
};

template <class T>
void Attention<T>::forward(View<T> qkv, View<T> y) {
  for_pieces(parallel_, qkv.rows() / length_ * heads_, 1, [&](Index task, Index) { forward_head(task, qkv, y); });
}

template <class T>
void Attention<T>::forward_head(Index task, View<T> qkv, View<T> y) {
  auto q = head(qkv, task, 0);
  auto k = head(qkv, task, 1);
  const auto v = head(qkv, task, 2);
  auto out = head(y, task, 0);
  rotary_.forward(q);
  rotary_.forward(k);
  for (Index begin = 0; begin < length_; begin += strip) {
    const Index count = std::min(strip, length_ - begin);
    const Index keys = begin + count;
    auto p = tile(probabilities_, task * length_ + begin, 0, count, keys);
    p.noalias() = q.middleRows(begin, count) * k.topRows(keys).transpose();
    for (Index i = 0; i < count; ++i) {
      auto seen = p.row(i).head(begin + i + 1).array();
      const T top = seen.maxCoeff();
      seen = ((seen - top) * scale_).exp();
      seen *= T(1) / seen.sum();
      p.row(i).tail(count - i - 1).setZero();
    }
    out.middleRows(begin, count).noalias() = p * v.topRows(keys);
  }
}

template <class T>
void Attention<T>::backward(ConstView<T> qkv, ConstView<T> y, ConstView<T> d_y, View<T> d_qkv) {
  for_pieces(parallel_, qkv.rows() / length_ * heads_, 1,
             [&](Index task, Index) { backward_head(task, qkv, y, d_y, d_qkv); });
}

template <class T>
void Attention<T>::backward_head(Index task, ConstView<T> qkv, ConstView<T> y, ConstView<T> d_y, View<T> d_qkv) {
  const auto q = head(qkv, task, 0);
  const auto k = head(qkv, task, 1);
  const auto v = head(qkv, task, 2);
  const auto out = head(y, task, 0);
  const auto d_out = head(d_y, task, 0);
  auto d_q = head(d_qkv, task, 0);
  auto d_k = head(d_qkv, task, 1);
  auto d_v = head(d_qkv, task, 2);
  d_k.setZero();
  d_v.setZero();
  for (Index begin = 0; begin < length_; begin += strip) {
    const Index count = std::min(strip, length_ - begin);
    const Index keys = begin + count;
    const auto p = tile(probabilities_, task * length_ + begin, 0, count, keys);
    auto d_s = tile(d_scores_, task * strip, 0, count, keys);
    d_v.topRows(keys).noalias() += p.transpose() * d_out.middleRows(begin, count);
    d_s.noalias() = d_out.middleRows(begin, count) * v.topRows(keys).transpose();
    for (Index i = 0; i < count; ++i) {
      // sum_j p_j d_p_j equals the product of the output with its gradient, which is four times shorter at L = 128.
      const T mean = out.row(begin + i).dot(d_out.row(begin + i));
      d_s.row(i).array() = (d_s.row(i).array() - mean) * p.row(i).array() * scale_;
    }
    d_q.middleRows(begin, count).noalias() = d_s * k.topRows(keys);
    d_k.topRows(keys).noalias() += d_s.transpose() * q.middleRows(begin, count);
  }
  rotary_.backward(d_q);
  rotary_.backward(d_k);
}

}  // namespace host
