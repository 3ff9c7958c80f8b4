// SPDX-License-Identifier: MIT
// WholeCallScorePolicy: the contract of scores that look at all tokens of a call.
#pragma once

#include "mole/core/pass.hpp"
#include "mole/core/view.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable type with
///     forward_whole_call(logits, scores, pass)                        scores overwritten
///     backward_whole_call(logits, scores, d_scores, d_logits, pass)   d_logits accumulated
///   logits, scores, d_scores, d_logits [N x (E + extra)]
/// Only tokens that pass.chooses() count for others. A logit of NaN has the score NaN, one of -infinity excludes the
/// expert for its token; both count for no other.
template <class S, class T>
concept WholeCallScorePolicy = std::copyable<S> &&
    requires(const S& score, View<const T> in, View<T> out, const Pass& pass) {
  score.forward_whole_call(in, out, pass);
  score.backward_whole_call(in, in, in, out, pass);
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
