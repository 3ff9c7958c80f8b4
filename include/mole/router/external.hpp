// SPDX-License-Identifier: MIT
// The router of a layer whose routing comes from outside.
#pragma once

namespace mole {

/// The layer has apply() and apply_backward(), but no route() and no forward(): labels, a classifier over the whole
/// model (X-LoRA), another layer's routing or a replayed trace decide.
struct External {};

}  // namespace mole
