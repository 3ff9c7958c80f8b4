// SPDX-License-Identifier: MIT
// labels_of_sequences(), round_robin_labels(), hash_labels(): an expert or task for each token that is known without
// looking at what it holds.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/pass.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <span>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The label of its sequence for each of `tokens` tokens: a sentence goes where its domain says.
///
///   of_sequence [sequences]; pass.sequence_begin as in a call
///
/// As labels of experts they make the routing of a layer without a router, or force what a router would choose:
///     layer.apply(x, Routing<T>::from_labels(labels, experts), y, work);      layer.forward(x, y, work, {.forced =
///     l});
/// As labels of tasks, domains or modalities they go into Pass::labels, for routers that look at them.
/// Throws Error(shape) unless there is one label for each sequence, or sequences do not fit the tokens.
/// Source: Hallee et al. 2024, arXiv:2401.15713 (enforced routing).
inline std::vector<int> labels_of_sequences(std::span<const int> of_sequence, Index tokens, const Pass& pass) {
  require_equal(ErrorCode::shape, "labels_of_sequences: labels, one of each sequence", pass.sequences(),
                Index(of_sequence.size()));
  Pass{.sequence_begin = pass.sequence_begin}.check(tokens, 0);
  std::vector<int> labels;
  for (Index s = 0; s < pass.sequences(); ++s)
    labels.resize(std::size_t(pass.end_of(s, tokens)), of_sequence[std::size_t(s)]);
  return labels;
}

/// Token n of the pass goes to expert n modulo E: the same load for all, counted on from pass.first_token.
inline std::vector<int> round_robin_labels(Index tokens, Index experts, const Pass& pass = {}) {
  require(experts >= 1, ErrorCode::option, "round_robin_labels: expected at least 1 expert, found ", experts);
  std::vector<int> labels(std::size_t(std::max<Index>(0, tokens)));
  for (std::size_t n = 0; n < labels.size(); ++n) labels[n] = int((pass.first_token + n) % std::uint64_t(experts));
  return labels;
}

/// An expert for each number of a vocabulary, at random but fixed: the same token id goes to the same expert.
/// Source: Roller et al. 2021 (Hash layers), arXiv:2106.04426, "random hash".
inline std::vector<int> hash_labels(std::span<const int> ids, Index experts, std::uint64_t seed = 0) {
  require(experts >= 1, ErrorCode::option, "hash_labels: expected at least 1 expert, found ", experts);
  std::vector<int> labels;
  for (int id : ids) labels.push_back(int(mix_bits(mix_bits(seed) ^ std::uint64_t(id)) % std::uint64_t(experts)));
  return labels;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
