// SPDX-License-Identifier: MIT
// Methods whose routers take more than a layer's tokens, or have losses of more than its trace.
#pragma once

#include "training/methods/sizes.hpp"

#include <vector>

namespace training {

std::vector<Method> methods_of_connected_routers(const Execution& execution);

}  // namespace training
