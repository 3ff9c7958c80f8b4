// SPDX-License-Identifier: MIT
// Methods whose experts are small LoRAs of several ranks each.
#pragma once

#include "training/methods/sizes.hpp"

#include <vector>

namespace training {

std::vector<Method> methods_of_block_experts(const Execution& execution);

}  // namespace training
