// SPDX-License-Identifier: MIT
// SelfAttention: every token of a sequence looks at all of it.
#pragma once

#include "encoder/execution.hpp"
#include "encoder/token_batch.hpp"
#include "encoder/vector_loop.hpp"
#include "mole/core/matrix.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

namespace encoder {

/// y = softmax(Q K^T / sqrt(D)) V, for every sequence and head of width D.
///
///   q, k, v, y [N x W], W = heads * D
///
/// Sequences of different lengths lie one after the other; a sequence and a head is a task.
template <class T>
class SelfAttention {
 public:
  explicit SelfAttention(mole::Index heads) : heads_(heads) {}

  /// Shares, one L x L matrix for each head of each sequence: what backward needs of forward.
  using Shares = std::vector<T>;

  void forward(const TokenBatch& batch, mole::View<const T> q, mole::View<const T> k, mole::View<const T> v,
               mole::View<T> y, Shares& shares, const Execution& execution) const;

  /// d_q, d_k, d_v <- (dy/dq)^T d_y and so on: written, not added to.   `shares` is what forward left.
  void backward(const TokenBatch& batch, mole::View<const T> q, mole::View<const T> k, mole::View<const T> v,
                mole::View<const T> d_y, mole::View<T> d_q, mole::View<T> d_k, mole::View<T> d_v, const Shares& shares,
                const Execution& execution) const;

 private:
  static constexpr mole::Simd<> serial = {};

  /// Where the shares of each sequence begin, and their total.
  std::vector<mole::Index> places(const TokenBatch& batch) const {
    std::vector<mole::Index> result{0};
    for (mole::Index s = 0; s < batch.sequences(); ++s)
      result.push_back(result.back() + heads_ * batch.length(s) * batch.length(s));
    return result;
  }
  /// f(part, shares [L x L]) for each task; part(m) is what belongs to it of an [N x W] matrix.
  template <class Number, class F>
  void for_each_task(const TokenBatch& batch, std::span<Number> shares, const Execution& execution, F f) const {
    const std::vector<mole::Index> place = places(batch);
    execution.parallel_for(batch.sequences() * heads_, [&](mole::Index task) {
      const mole::Index sequence = task / heads_, head = task % heads_;
      const mole::Index first = batch.first(sequence), length = batch.length(sequence);
      const auto part = [=, this](auto matrix) {
        const mole::Index width = matrix.cols() / heads_;
        return matrix.middle_rows(first, length).middle_cols(head * width, width);
      };
      f(part,
        mole::View<Number>(shares.data() + place[std::size_t(sequence)] + head * length * length, length, length));
    });
  }
  T scale(mole::Index width) const { return T(1) / std::sqrt(T(width / heads_)); }

  mole::Index heads_;
};

template <class T>
void SelfAttention<T>::forward(const TokenBatch& batch, mole::View<const T> q, mole::View<const T> k,
                               mole::View<const T> v, mole::View<T> y, Shares& shares,
                               const Execution& execution) const {
  shares.resize(std::size_t(places(batch).back()));
  const T scale = this->scale(q.cols());
  for_each_task(batch, std::span(shares), execution, [&](auto part, mole::View<T> p) {
    serial.product_nt<T>(part(q), part(k), p);
    for (mole::Index n = 0; n < p.rows(); ++n) {
      const std::span<T> row = p.row(n);
      const T most = *std::max_element(row.begin(), row.end());
      vector_loop(
          row,
          [&](auto z) {
            using std::exp;
            return exp((z - most) * scale);
          },
          std::span<const T>(row));
      const T share = T(1) / std::accumulate(row.begin(), row.end(), T(0));
      for (T& element : row) element *= share;
    }
    mole::fill(part(y), T(0));
    serial.product_nn<T>(p, part(v), part(y));
  });
}

template <class T>
void SelfAttention<T>::backward(const TokenBatch& batch, mole::View<const T> q, mole::View<const T> k,
                                mole::View<const T> v, mole::View<const T> d_y, mole::View<T> d_q, mole::View<T> d_k,
                                mole::View<T> d_v, const Shares& shares, const Execution& execution) const {
  const T scale = this->scale(q.cols());
  for (mole::View<T> d : {d_q, d_k, d_v}) mole::fill(d, T(0));
  for_each_task(batch, std::span<const T>(shares), execution, [&](auto part, mole::View<const T> p) {
    serial.product_tn<T>(p, part(d_y), part(d_v));
    mole::Matrix<T> d_scores(p.rows(), p.cols());
    serial.product_nt<T>(part(d_y), part(v), d_scores.view());
    for (mole::Index n = 0; n < p.rows(); ++n) {
      const std::span<T> d = d_scores.view().row(n);
      const T mean = std::inner_product(d.begin(), d.end(), p.row(n).begin(), T(0));
      for (mole::Index j = 0; j < p.cols(); ++j) d_scores(n, j) = (d_scores(n, j) - mean) * p(n, j) * scale;
    }
    serial.product_nn<T>(d_scores.view(), part(k), part(d_q));
    serial.product_tn<T>(d_scores.view(), part(q), part(d_k));
  });
}

}  // namespace encoder
