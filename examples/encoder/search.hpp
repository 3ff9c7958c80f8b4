// SPDX-License-Identifier: MIT
// search(): the documents nearest to a text.
#pragma once

#include "encoder/options.hpp"

namespace encoder {

/// Embeds the longer texts of all domains and prints the ten nearest to `options.query`.
void search(const Options& options);

}  // namespace encoder
