// SPDX-License-Identifier: MIT
// ScorePolicy: the contract of scores: from logits to comparable numbers.
#pragma once

#include "mole/core/config.hpp"
#include "mole/kernel/element_loops.hpp"

#include <concepts>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with, for one token,
///     forward(logits, scores)                        scores overwritten, as many as logits
///     backward(logits, scores, d_scores, d_logits)   d_logits accumulated; `scores` is exactly what forward made
/// A score whose numbers may vanish offers the logarithm of their ratios, and its derivative,
///     log_ratio(logits, e, f)   log(score_e / score_f)      d_log_score(logits, e)   by logit_e
/// so that a gate takes shares of vanished scores from logits; if not for all experts, has_logs(chosen) tells. A score
/// that excludes experts says which it does not: allows(expert); a gate gives the others a logit of -infinity, with
/// which every gate excludes an expert. A gate gives a score no NaN: such an expert has the score NaN, and the others
/// have theirs as if it were excluded.
template <class S, class T>
concept ScorePolicy = std::copyable<S> && requires(const S& score, std::span<const T> in, std::span<T> out) {
  score.forward(in, out);
  score.backward(in, in, in, out);
};

/// A score written with the loops over a row (kernel/element_loops.hpp) that its calls take last, so that it processes
/// several experts or tokens at once if the execution has an Architecture. V is a number or a vector.
template <class S, class V, class Loops = kernel::ElementLoops>
concept LoopedScorePolicy = requires(const S& score, std::span<const V> in, std::span<V> out, const Loops& loops) {
  score.forward(in, out, loops);
  score.backward(in, in, in, out, loops);
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
