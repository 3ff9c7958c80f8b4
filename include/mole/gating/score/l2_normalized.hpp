// SPDX-License-Identifier: MIT
// L2Normalized: the logits of a token, scaled to unit length.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/score/score_policy.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

namespace mole {

/// score = logits / max(||logits||, eps), so that scores lie in [-1, 1] and do not change when the token is scaled.
///
/// A row of zeros has no direction: its scores are 0 and its logits get no gradient. A logit of -infinity has score
/// -infinity, does not count in the norm and gets no gradient.
/// Throws Error(option) unless eps > 0.  O(E) per token.
/// Source: Lu et al. 2025 (MoRAM), arXiv:2506.21035, as released: eps 1e-12 in XTAIL, 1e-8 in TRACE.
struct L2Normalized {
  double eps = 1e-12;

  void check(Index) const { require(eps > 0, ErrorCode::option, "L2Normalized: expected an eps above 0, found ", eps); }

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    using T = kernel::ScalarOf<V>;
    using std::max;
    const V scale = T(1) / max(norm(logits, loops), V(T(eps)));
    loops.set(
        scores, [&](const auto& logit) { return logit * scale; }, logits);
  }

  /// d_logit_e = (d_score_e - score_e <scores, d_scores>) / ||logits||;  d_score_e / eps for a norm below eps
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V> logits, std::span<const V> scores, std::span<const V> d_scores,
                std::span<V> d_logits, const Loops& loops = {}) const {
    using T = kernel::ScalarOf<V>;
    using kernel::select;
    using std::max;
    const V zero{T(0)}, least{T(eps)}, length = norm(logits, loops);
    const V radial = loops.sum_of([](const auto& score, const auto& d) { return finite(score) * d; }, scores, d_scores);
    const V inward = select(length > least, radial, zero);
    const V scale = select(length > zero, V(T(1) / max(length, least)), zero);
    loops.add(
        d_logits,
        [&](const auto& score, const auto& d) {
          using Element = std::remove_cvref_t<decltype(score)>;
          return select(kernel::is_minus_infinity(score), Element(T(0)), Element((d - finite(score) * inward) * scale));
        },
        scores, d_scores);
  }

 private:
  /// 0 for -infinity; NaN stays.
  template <class V>
  static V finite(const V& v) {
    using kernel::select;
    return select(kernel::is_minus_infinity(v), V(kernel::ScalarOf<V>(0)), v);
  }
  template <class V, class Loops>
  static V norm(std::span<const V> logits, const Loops& loops) {
    using std::sqrt;
    return sqrt(loops.sum_of([](const auto& logit) { return finite(logit) * finite(logit); }, logits));
  }
};

static_assert(ScorePolicy<L2Normalized, float>);

}  // namespace mole
