// SPDX-License-Identifier: MIT
// Options: the command line of the program.
#pragma once

#include "training/command_line.hpp"

namespace continual {

struct Options : training::RunOptions {
  long rank = 16;  // trainable ranks of a task
};

/// Throws training::Exit: with code 0 for --help, 2 for anything it cannot take.
Options parse_options(int count, char** arguments);

}  // namespace continual
