// SPDX-License-Identifier: MIT
// WholeCallSelectPolicy: the contract of selections that look at all tokens of a call.
#pragma once

#include "mole/core/pass.hpp"
#include "mole/core/scratch.hpp"
#include "mole/core/view.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
struct EmitArchetype {
  void operator()(Index token, int expert) const;
  bool excludes(Index token, int expert) const;
};
}  // namespace detail

/// Satisfied by a copyable type with
///     max_pairs(tokens, experts)   the most pairs that it can choose
///     select_whole_call(scores, experts, pass, emit, scratch)   calls emit(token, expert) for every chosen pair
///   scores [N x (E + extra)]
/// Only tokens that pass.chooses() are given experts, so that the others take nobody's place, and no expert that
/// emit.excludes(token, expert). The pairs of a token keep the order in which they are emitted.
template <class S, class T>
concept WholeCallSelectPolicy = std::copyable<S> &&
    requires(const S& select, View<const T> scores, Index size, const Pass& pass, const detail::EmitArchetype& emit,
             ScratchOf<S>& scratch) {
  { select.max_pairs(size, size) } -> std::convertible_to<Index>;
  select.select_whole_call(scores, size, pass, emit, scratch);
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
