// SPDX-License-Identifier: MIT
// The gating of a layer whose routing comes from outside.
#pragma once

namespace mole {

/// Nothing to decide; goes with the router External.
struct NoGating {};

}  // namespace mole
