// SPDX-License-Identifier: MIT
// ScoreRows: the scores of many tokens, one token at a time or vectorized.
#pragma once

#include "mole/core/view.hpp"
#include "mole/gating/score/score_policy.hpp"
#include "mole/kernel/lanes.hpp"
#include "mole/kernel/vector_loops.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The scores of some tokens.   logits, scores [tokens x columns]
///
/// A looped score works on vectors of experts, or of tokens if a row is narrower than a vector. Any other score, and
/// every score if Arch is void, is called token by token. Which form a token gets depends on its own row alone, so its
/// bits depend neither on its neighbors nor on its place among them or on their number.
template <class Arch>
struct ScoreRows {
  static constexpr unsigned char nan = 1, minus_infinity = 2;

  /// Also reports which tokens have a NaN, or a -infinity, among their logits. Tokens with a NaN or +infinity are
  /// recomputed in the scalar form, with which vectors need not agree there.
  template <class Score, class T>
  static void forward(const Score& score, View<const T> logits, View<T> scores, std::span<unsigned char> found) {
    const bool done = forward_vectors(score, logits, scores);
    if (done && all_finite(logits)) return void(std::fill(found.begin(), found.end(), 0));
    for (Index n = 0; n < logits.rows(); ++n) {
      const std::span<const T> row = logits.row(n);
      bool ordinary = true;
      unsigned char& found_in_row = found[std::size_t(n)] = 0;
      for (T logit : row) {
        ordinary &= logit < std::numeric_limits<T>::infinity();
        if (std::isnan(logit)) found_in_row |= nan;
        if (kernel::is_minus_infinity(logit)) found_in_row |= minus_infinity;
      }
      if (!done || !ordinary) score.forward(row, scores.row(n));
    }
  }

  /// d_logits += ...; narrow rows token by token, as moving them into lanes and back would cost as much as it saves.
  template <class Score, class T>
  static void backward(const Score& score, View<const T> logits, View<const T> scores, View<const T> d_scores,
                       View<T> d_logits) {
    for (Index n = 0; n < logits.rows(); ++n) {
      if constexpr (along<Score, T>)
        if (logits.cols() >= kernel::step_of<Arch, T>) {
          score.backward(logits.row(n), scores.row(n), d_scores.row(n), d_logits.row(n), kernel::VectorLoops<Arch>{});
          continue;
        }
      score.backward(logits.row(n), scores.row(n), d_scores.row(n), d_logits.row(n));
    }
  }

 private:
  /// Does the score work along a row?
  template <class Score, class T>
  static constexpr bool along = [] {
    if constexpr (!std::is_void_v<Arch>) return LoopedScorePolicy<Score, T, kernel::VectorLoops<Arch>>;
    return false;
  }();

  /// False if the score offers no form for rows of this width.
  template <class Score, class T>
  static bool forward_vectors(const Score& score, View<const T> logits, View<T> scores) {
    if constexpr (!std::is_void_v<Arch>) {
      if (logits.cols() < kernel::step_of<Arch, T>) {
        if constexpr (LoopedScorePolicy<Score, kernel::Vector<Arch, T>>) return forward_lanes(score, logits, scores);
      } else if constexpr (along<Score, T>) {
        for (Index n = 0; n < logits.rows(); ++n)
          score.forward(logits.row(n), scores.row(n), kernel::VectorLoops<Arch>{});
        return true;
      }
    }
    return false;
  }

  /// Tokens in lanes: a partly filled vector of experts would cost as much as a full one, 27 ns instead of 9 at E = 8.
  /// A single token pays for all lanes, 0.1 us more than the scalar form, which would give it other bits.
  template <class Score, class T>
  static bool forward_lanes(const Score& score, View<const T> logits, View<T> scores) {
    using Lanes = kernel::Lanes<Arch, T>;
    std::array<typename Lanes::Vector, std::size_t(Lanes::step)> in, out;
    const auto columns = std::size_t(logits.cols());
    for (Index n = 0; n < logits.rows(); n += Lanes::step) {
      const Index tokens = std::min(Lanes::step, logits.rows() - n);
      Lanes::gather(logits.row_data(n), logits.stride(), tokens, logits.cols(), in.data());
      score.forward(std::span<const typename Lanes::Vector>(in).first(columns), std::span(out).first(columns),
                    kernel::ElementLoops{});
      Lanes::scatter(out.data(), tokens, scores.cols(), scores.row_data(n), scores.stride());
    }
    return true;
  }

  /// No NaN and no infinity among contiguous rows; false may mean "not checked".
  template <class T>
  static bool all_finite(View<const T> logits) {
    if constexpr (!std::is_void_v<Arch>) {
      if (logits.stride() != logits.cols() || logits.size() < kernel::step_of<Arch, T>) return false;
      const std::span<const T> all(logits.data(), std::size_t(logits.size()));
      return kernel::VectorLoops<Arch>{}.all(all, [](const auto& logit) {
        return (logit < std::numeric_limits<T>::infinity()) & (logit > -std::numeric_limits<T>::infinity());
      });
    }
    return false;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
