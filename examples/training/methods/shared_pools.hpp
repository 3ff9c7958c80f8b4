// SPDX-License-Identifier: MIT
// Methods whose layers share trained parameters: MoS, VB-LoRA.
#pragma once

#include "training/methods/sizes.hpp"

#include <vector>

namespace training {

std::vector<Method> methods_of_shared_pools(const Execution& execution, const EqualRanks& ranks);

}  // namespace training
