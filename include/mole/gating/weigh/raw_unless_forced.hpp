// SPDX-License-Identifier: MIT
// RawUnlessForced: gates that are scores, and 1 for an expert that a token is forced to.
#pragma once

#include "mole/gating/weigh/raw.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// As Raw, but an expert in pass.forced serves with gate 1, whatever its score, and gets no gradient through it.
///
/// For experts that scores do not choose, such as ProMoE's unconditional expert: Masked excludes it, so that only the
/// tokens that are forced to it have it.
/// Source: ali-vilab/ProMoE, models/models_ProMoE_TC.py, where tokens of samples without a condition go to one expert.
struct RawUnlessForced : Raw {
  double lone_gate() const { return 1; }
};

static_assert(WeighPolicy<RawUnlessForced, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
