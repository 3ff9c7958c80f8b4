// SPDX-License-Identifier: MIT
// run_sequence(): the whole run: text, base, one task after the other for each method, tables, pictures.
#pragma once

#include "continual/options.hpp"

namespace continual {

/// Prints the tables, writes report.html and matrix.csv to options.out. Throws std::exception with one clear line for
/// what it cannot take, training::Interrupted after Ctrl-C.
void run_sequence(const Options& options);

}  // namespace continual
