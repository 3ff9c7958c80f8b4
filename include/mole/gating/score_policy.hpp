// SPDX-License-Identifier: MIT
// The contract of scores: from logits to something comparable.
#pragma once

#include "mole/core/config.hpp"

#include <concepts>
#include <span>

namespace mole {

/// Satisfied by a copyable type with, for one token,
///     forward(logits, scores)                      scores overwritten, as many as logits
///     backward(logits, scores, d_scores, d_logits)  d_logits accumulated; `scores` is exactly what forward made
template <class S, class T>
concept ScorePolicy = std::copyable<S> && requires(const S& score, std::span<const T> in, std::span<T> out) {
  score.forward(in, out);
  score.backward(in, in, in, out);
};

}  // namespace mole
