// SPDX-License-Identifier: MIT
// compare(): the encoder as it is, and adapted by every method, on texts held out.
#pragma once

#include "encoder/options.hpp"

namespace encoder {

/// Prints a table, and writes it with the training curves as `options.out`/report.html, beside each method's
/// parameters. Throws training::Interrupted after Ctrl-C, and training::Exit for a machine without documents.
void compare(const Options& options);

}  // namespace encoder
