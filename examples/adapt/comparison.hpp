// SPDX-License-Identifier: MIT
// compare(): the whole run: text, base, adapters, table, report.
#pragma once

#include "adapt/options.hpp"

namespace adapt {

/// Prints the table, writes the report and the adapters to options.out. Throws std::exception with one clear line for
/// what it cannot take, training::Interrupted when Ctrl-C stopped it with its state saved.
void compare(const Options& options);

}  // namespace adapt
