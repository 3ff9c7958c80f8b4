// SPDX-License-Identifier: MIT
// coded_layer: forward of the plain layer with its weight in reduced storage.
#pragma once

#include "mole/core/config.hpp"

#include <functional>
#include <string_view>

namespace bench {

/// Forward of a base, on one thread and tensors of its own: "bf16", "int8_row", "int8_block" or "nf4".
/// Throws std::out_of_range for another name.
std::function<void()> coded_layer(std::string_view name, mole::Index tokens, mole::Index d);

}  // namespace bench
