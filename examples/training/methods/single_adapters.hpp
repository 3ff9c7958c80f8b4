// SPDX-License-Identifier: MIT
// Methods with one adapter for every token that is other than two trained matrices, or starts in another way.
#pragma once

#include "training/methods/sizes.hpp"

#include <vector>

namespace training {

std::vector<Method> methods_of_single_adapters(const Execution& execution, const EqualRanks& ranks);

}  // namespace training
