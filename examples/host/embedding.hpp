// SPDX-License-Identifier: MIT
#pragma once

// Bytes to vectors: one table for the byte at a position and one for each of the few before it.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "host/parallel.hpp"
#include "host/parameter.hpp"

namespace host {

/// y_n = sum over back = 0 ... 3 of table[back][byte at n - back], within the sequence of n.
///
///   tokens [S * L], S sequences of L bytes   ->   y [S * L x W];   each table [256 x W]
///
/// The three earlier bytes spare a small model the layers it would need to learn short words. Positions before the
/// start of a sequence contribute nothing.
template <class T>
class Embedding {
 public:
  static constexpr Index bytes_seen = 4;

  Embedding(Index width, Index length, Random& random, Parallel parallel)
      : length_(length), tables_(bytes_seen, Parameter<T>(256, width)), parallel_(std::move(parallel)) {
    for (Parameter<T>& table : tables_) table.draw(random, 0.02);
  }

  [[nodiscard]] bool trainable() const {
    return std::any_of(tables_.begin(), tables_.end(), [](const Parameter<T>& table) { return !table.frozen(); });
  }
  void visit(const std::string& prefix, const Visitor<T>& f) {
    for (std::size_t back = 0; back < tables_.size(); ++back) f(prefix + "." + std::to_string(back), tables_[back]);
  }

  void forward(std::span<const std::uint8_t> tokens, View<T> y) const;

  /// Adds d_y [S * L x W] into the gradients of those tables that are not frozen.
  void backward(std::span<const std::uint8_t> tokens, ConstView<T> d_y);

 private:
  Index length_;
  std::vector<Parameter<T>> tables_;
  Parallel parallel_;
};

template <class T>
void Embedding<T>::forward(std::span<const std::uint8_t> tokens, View<T> y) const {
  for_pieces(parallel_, y.rows(), length_, [&](Index begin, Index count) {
    for (Index n = begin; n < begin + count; ++n) {
      y.row(n).setZero();
      for (Index back = 0; back < bytes_seen && n - back >= begin; ++back) {
        y.row(n) += tables_[static_cast<std::size_t>(back)].value.row(tokens[static_cast<std::size_t>(n - back)]);
      }
    }
  });
}

template <class T>
void Embedding<T>::backward(std::span<const std::uint8_t> tokens, ConstView<T> d_y) {
  // One task per table: tokens meet in the same row of a table, so a cut by tokens would race.
  for_pieces(parallel_, bytes_seen, 1, [&](Index back, Index) {
    Parameter<T>& table = tables_[static_cast<std::size_t>(back)];
    if (table.frozen()) return;
    for (Index n = 0; n < d_y.rows(); ++n) {
      if (n % length_ >= back) table.gradient.row(tokens[static_cast<std::size_t>(n - back)]) += d_y.row(n);
    }
  });
}

}  // namespace host
