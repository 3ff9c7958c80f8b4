// SPDX-License-Identifier: MIT
// Pass: per-call settings that are not tensors: training mode, random key, token masks, sequence boundaries.
#pragma once

#include "mole/core/checked_size.hpp"
#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Mode, random key and token structure of one forward call; everything has a default. The spans are borrowed and must
/// outlive the backward call.
struct Pass {
  bool training = false;   ///< dropout and noise act only when true
  std::uint64_t seed = 0;  ///< with `layer`, `step` and the token's number: the key of every random number
  std::uint64_t layer = 0;
  std::uint64_t step = 0;
  std::uint64_t first_token = 0;  ///< number of row 0, for a batch that arrives in pieces

  /// One flag per token: 0 leaves the token out of losses and statistics; it is still routed and computed.
  std::span<const std::uint8_t> token_mask = {};
  /// One flag per token: 0 leaves the token to the base alone (padding, another modality): no expert serves it, losses
  /// and statistics leave it out, and what its x holds, NaN or infinity, reaches no other token and no gradient.
  std::span<const std::uint8_t> routed = {};
  /// One number per token: the only expert that serves it, whatever the scores say; -1 leaves the choice to the gating.
  std::span<const int> forced = {};
  /// One flag per token and expert that has a logit, token by token: 0 rules the expert out for the token, as a logit
  /// of -infinity does (another tenant's adapter, a vision expert that a first, coarse routing has not named).
  std::span<const std::uint8_t> allowed = {};
  /// One number per token: its task, domain or modality, for routers that look at it. Empty: 0 for all.
  std::span<const int> labels = {};
  /// First row of each sequence, ascending from 0. Empty: one sequence.
  std::span<const Index> sequence_begin = {};

  bool routes(Index token) const { return routed.empty() || routed[std::size_t(token)] != 0; }
  bool counts(Index token) const {
    return routes(token) && (token_mask.empty() || token_mask[std::size_t(token)] != 0);
  }
  bool all_count() const { return routed.empty() && token_mask.empty(); }
  int forced_expert(Index token) const { return forced.empty() ? -1 : forced[std::size_t(token)]; }
  int label(Index token) const { return labels.empty() ? 0 : labels[std::size_t(token)]; }
  /// Is the choice of its experts up to the gating?
  bool chooses(Index token) const { return routes(token) && forced_expert(token) < 0; }
  Index sequences() const { return sequence_begin.empty() ? 1 : Index(sequence_begin.size()); }
  Index first_of(Index sequence) const { return sequence_begin.empty() ? 0 : sequence_begin[std::size_t(sequence)]; }
  /// One past the last row of `sequence` in a batch of `tokens` rows.
  Index end_of(Index sequence, Index tokens) const {
    return sequence + 1 < sequences() ? sequence_begin[std::size_t(sequence + 1)] : tokens;
  }

  /// Do dropout and noise draw the same numbers in both?
  bool draws_as(const Pass& other) const {
    const auto key = [](const Pass& p) { return std::tuple(p.training, p.seed, p.layer, p.step, p.first_token); };
    return key(*this) == key(other);
  }

  /// Throws Error(option), naming `who`, unless the labels of all routed ones of `tokens` tokens are from 0 to `count`
  /// - 1, and given if there are several and a token to have one.
  void check_labels(std::string_view who, Index count, Index tokens) const {
    require(count <= 1 || tokens == 0 || !labels.empty(), ErrorCode::option, who,
            ": expected labels of the tokens in the pass, of ", count, " kinds, found none");
    for (std::size_t n = 0; n < labels.size(); ++n)
      require(!routes(Index(n)) || (labels[n] >= 0 && labels[n] < count), ErrorCode::option, who,
              ": expected labels from 0 to ", count - 1, ", found ", labels[n]);
  }

  /// Throws Error(shape) or Error(option) unless the spans fit `tokens` tokens and every forced expert is one of the
  /// `scored_experts` that have a logit.
  void check(Index tokens, Index scored_experts) const {
    if (!token_mask.empty())
      require_equal(ErrorCode::shape, "forward: size of the token mask", tokens, Index(token_mask.size()));
    if (!routed.empty())
      require_equal(ErrorCode::shape, "forward: size of the flags of routed tokens", tokens, Index(routed.size()));
    if (!forced.empty())
      require_equal(ErrorCode::shape, "forward: size of the forced experts", tokens, Index(forced.size()));
    if (!labels.empty()) require_equal(ErrorCode::shape, "forward: size of the labels", tokens, Index(labels.size()));
    for (int e : forced)
      require(e >= -1 && e < scored_experts, ErrorCode::option, "forward: expected forced experts from -1 to ",
              scored_experts - 1, ", found ", e);
    if (!allowed.empty())
      require_equal(ErrorCode::shape, "forward: flags of allowed experts",
                    checked_product("forward: flags of allowed experts", tokens, scored_experts),
                    Index(allowed.size()));
    const auto& begin = sequence_begin;
    if (begin.empty()) return;
    require(begin.front() == 0 && std::is_sorted(begin.begin(), begin.end()) && begin.back() <= tokens,
            ErrorCode::shape, "forward: expected sequence starts that ascend from 0 to at most ", tokens, " tokens");
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
