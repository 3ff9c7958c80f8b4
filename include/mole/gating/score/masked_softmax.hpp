// SPDX-License-Identifier: MIT
// MaskedSoftmax: softmax probabilities over the experts that are allowed.
#pragma once

#include "mole/gating/score/softmax.hpp"

#include <cstdint>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// score = softmax over the allowed experts, 0 for the others; 0 for all if no expert is allowed.
///
///   allowed [E], 0 or 1: experts of one tenant, of one modality, not yet pruned
///
/// To exclude experts per token, say so in the pass (Pass::allowed), or give them logits of -infinity; Softmax takes
/// both.
/// Throws Error(option) unless `allowed` has E flags.
/// Source: Zong et al. 2024 (MoVA), arXiv:2404.13046; Wang et al. 2024 (HoME), arXiv:2408.05430.
struct MaskedSoftmax {
  std::vector<std::uint8_t> allowed;

  void check(Index experts) const {
    require_equal(ErrorCode::option, "MaskedSoftmax: flags of allowed experts", experts, Index(allowed.size()));
  }

  /// An expert that is not allowed never serves, even where a selection takes more experts than are allowed.
  bool allows(Index expert) const { return allowed[std::size_t(expert)] != 0; }

  /// log(score_e / score_f); its derivative by logit_e.
  template <class T>
  T log_ratio(std::span<const T> logits, int e, int f) const {
    return Softmax{}.log_ratio(logits, e, f);
  }
  template <class T>
  T d_log_score(std::span<const T> logits, int e) const {
    return Softmax{}.d_log_score(logits, e);
  }

  template <class T>
  void forward(std::span<const T> logits, std::span<T> scores) const {
    for (std::size_t e = 0; e < logits.size(); ++e)
      scores[e] = allowed[e] ? logits[e] : -std::numeric_limits<T>::infinity();
    Softmax{}.forward(std::span<const T>(scores), scores);
  }

  template <class T>
  void backward(std::span<const T> logits, std::span<const T> scores, std::span<const T> d_scores,
                std::span<T> d_logits) const {
    Softmax{}.backward(logits, scores, d_scores, d_logits);  // a score of 0 passes no gradient
  }
};

static_assert(ScorePolicy<MaskedSoftmax, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
