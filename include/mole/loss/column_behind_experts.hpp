// SPDX-License-Identifier: MIT
// require_column_behind_experts(): checks that scores have a per-token column after the experts (threshold, lambda).
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/trace.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// Throws Error(shape), naming `who`, unless the scores have a column after those of the experts: a threshold, a
/// lambda.
template <class T>
void require_column_behind_experts(std::string_view who, const Trace<T>& trace) {
  require(trace.scores().cols() > trace.scored_experts(), ErrorCode::shape, who,
          ": expected a column of the scores behind those of ", trace.scored_experts(), " experts, found none");
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
