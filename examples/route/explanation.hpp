// SPDX-License-Identifier: MIT
// explain(): the whole run: adapter, base, text, page.
#pragma once

#include "route/options.hpp"

namespace route {

/// Writes the page. Throws std::exception with one clear line for what it cannot take.
void explain(const Options& options);

}  // namespace route
