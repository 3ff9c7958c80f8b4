// SPDX-License-Identifier: MIT
#pragma once

// Softmax and mean cross-entropy over bytes.

#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

#include "host/matrix.hpp"
#include "host/parallel.hpp"

namespace host {

/// Nats per byte, as the losses here are given, in bits per byte.
inline double bits_per_byte(double nats) {
  return nats / std::numbers::ln2;
}

/// loss_n = -log softmax(logits_n)[target_n], in nats.
template <class T>
class CrossEntropy {
 public:
  explicit CrossEntropy(Parallel parallel) : parallel_(std::move(parallel)) {}

  void reserve(Index tokens) { losses_.reserve(static_cast<std::size_t>(tokens)); }

  /// Returns the mean loss; the logits [N x V] become probabilities. targets [N], each below V
  double forward(View<T> logits, std::span<const std::uint8_t> targets);

  /// The probabilities that forward left become the gradient of the mean loss with respect to the logits.
  void backward(View<T> probabilities, std::span<const std::uint8_t> targets) const;

  /// The loss of every token of the last forward, [N].
  [[nodiscard]] std::span<const double> losses() const { return losses_; }

 private:
  std::vector<double> losses_;
  Parallel parallel_;
};

template <class T>
double CrossEntropy<T>::forward(View<T> logits, std::span<const std::uint8_t> targets) {
  losses_.resize(targets.size());
  for_pieces(parallel_, logits.rows(), row_piece, [&](Index begin, Index count) {
    for (Index n = begin; n < begin + count; ++n) {
      auto row = logits.row(n).array();
      row -= row.maxCoeff();
      const auto i = static_cast<std::size_t>(n);
      const T target = row(targets[i]);
      row = row.exp();
      const T sum = row.sum();
      row *= T(1) / sum;
      losses_[i] = static_cast<double>(std::log(sum) - target);
    }
  });
  double total = 0;  // one thread, one order
  for (const double loss : losses_) total += loss;
  return total / static_cast<double>(losses_.size());
}

template <class T>
void CrossEntropy<T>::backward(View<T> probabilities, std::span<const std::uint8_t> targets) const {
  const T share = T(1) / static_cast<T>(probabilities.rows());
  for_pieces(parallel_, probabilities.rows(), row_piece, [&](Index begin, Index count) {
    rows(probabilities, begin, count) *= share;
    for (Index n = begin; n < begin + count; ++n) probabilities(n, targets[static_cast<std::size_t>(n)]) -= share;
  });
}

}  // namespace host
