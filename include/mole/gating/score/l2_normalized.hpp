// SPDX-License-Identifier: MIT
// L2Normalized: the logits of a token, scaled to unit length.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/gating/score/score_policy.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = logits / max(||logits||, eps), so that scores lie in [-1, 1] and do not change when the token is scaled.
///
/// A row of zeros has no direction: its scores are 0 and its logits get no gradient. A logit of -infinity has score
/// -infinity, does not count in the norm and gets no gradient.
/// Throws Error(option) unless eps is from 1e-30 to 1e30.  O(E) per token.
/// Source: Lu et al. 2025 (MoRAM), arXiv:2506.21035, as released: eps 1e-12 in XTAIL, 1e-8 in TRACE.
struct L2Normalized {
  double eps = 1e-12;

  void check(Index) const {
    require(eps > 0 && in_float_range(eps), ErrorCode::option,
            "L2Normalized: expected an eps from 1e-30 to 1e30, found ", eps);
  }

  template <class V, class Loops = kernel::ElementLoops>
  void forward(std::span<const V> logits, std::span<V> scores, const Loops& loops = {}) const {
    const Length<V> length(*this, logits, loops);
    const V divisor = length.bounded();
    loops.set(
        scores, [&](const auto& logit) { return logit / length.largest / divisor; }, logits);
  }

  /// d_logit_e = (d_score_e - score_e <scores, d_scores>) / ||logits||;  d_score_e / eps for a norm below eps
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V> logits, std::span<const V> scores, std::span<const V> d_scores,
                std::span<V> d_logits, const Loops& loops = {}) const {
    using T = kernel::ScalarOf<V>;
    using kernel::select;
    const V zero{T(0)};
    const Length<V> length(*this, logits, loops);
    const V radial = loops.sum_of([](const auto& score, const auto& d) { return finite(score) * d; }, scores, d_scores);
    const V inward = select(length.norm > length.least, radial, zero), divisor = length.bounded();
    const V scale = select(length.norm > zero, V(T(1) / length.largest / divisor), zero);
    loops.add(
        d_logits,
        [&](const auto& score, const auto& d) {
          using Element = std::remove_cvref_t<decltype(score)>;
          return select(kernel::is_minus_infinity(score), Element(T(0)), Element((d - finite(score) * inward) * scale));
        },
        scores, d_scores);
  }

 private:
  /// The norm of a row and eps, both relative to the largest magnitude, so that squares neither overflow nor vanish.
  template <class V>
  struct Length {
    using T = kernel::ScalarOf<V>;

    template <class Loops>
    Length(const L2Normalized& score, std::span<const V> logits, const Loops& loops) {
      using std::max, std::min, std::sqrt;
      largest = max(loops.largest_of([](const auto& logit) { return size(logit); }, logits),
                    V(std::numeric_limits<T>::min()));
      const auto square = [&](const auto& logit) {
        const auto relative = finite(logit) / largest;
        return relative * relative;
      };
      norm = sqrt(loops.sum_of(square, logits));
      least = min(V(T(score.eps)) / largest, V(std::numeric_limits<T>::max()));
    }
    V bounded() const {
      using std::max;
      return max(norm, least);
    }

    V largest, norm, least;
  };

  /// 0 for -infinity; NaN stays.
  template <class V>
  static V finite(const V& v) {
    using kernel::select;
    return select(kernel::is_minus_infinity(v), V(kernel::ScalarOf<V>(0)), v);
  }
  template <class V>
  static V size(const V& v) {
    using std::abs;
    return abs(finite(v));
  }
};

static_assert(ScorePolicy<L2Normalized, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
