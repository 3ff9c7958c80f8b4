// SPDX-License-Identifier: MIT
// The plain layer with a weight of reduced storage.
#pragma once

#include "mole/core/config.hpp"

#include <functional>
#include <string_view>

namespace support {

/// Forward of a base, on one thread and tensors of its own: "bf16", "int8_row", "int8_block" or "nf4".
/// Throws std::out_of_range for another name.
std::function<void()> coded_layer(std::string_view name, mole::Index tokens, mole::Index d);

}  // namespace support
